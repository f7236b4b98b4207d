// What the service takes and answers, from its own openapi.json.
const $ = id => document.getElementById(id);

function add(parent, tag, words, kind) {
  const e = document.createElement(tag);
  if (words) e.textContent = words;
  if (kind) e.className = kind;
  parent.append(e);
  return e;
}

function formOf(schema, all) {
  const name = schema?.$ref?.split('/').pop();
  return name ? all[name] : schema ?? {};
}

function sample(schema, all, depth = 0) {
  const s = formOf(schema, all);
  if (s.examples?.length) return s.examples[0];
  if (s.anyOf) return sample(s.anyOf[0], all, depth);
  if (s.type === 'object') return depth > 4 ? {} : Object.fromEntries(
    Object.entries(s.properties ?? {}).map(([k, v]) => [k, sample(v, all, depth + 1)]));
  if (s.type === 'array') return [sample(s.items, all, depth + 1)];
  return {string: 'text', number: .5, integer: 1, boolean: true}[s.type] ?? null;
}

function show(said) {
  const all = said.components?.schemas ?? {};
  for (const [path, ways] of Object.entries(said.paths)) for (const [method, way] of Object.entries(ways)) {
    const title = add($('addresses'), 'h2');
    add(title, 'span', method.toUpperCase() + ' ', 'method');
    title.append(path);
    add($('addresses'), 'p', way.description);
    if (way.parameters?.length) {
      const list = add($('addresses'), 'ul');
      for (const p of way.parameters) {
        const kinds = p.schema.anyOf?.map(k => k.type).filter(k => k !== 'null') ?? [p.schema.type];
        add(list, 'li', `${p.name}: ${kinds.join(' or ')}${p.description ? '. ' + p.description : ''}`);
      }
    }
    const file = way.requestBody ? ' -F file=@clip.mp4' : '';
    add($('addresses'), 'pre', `curl${file} ${location.origin}${path}`).tabIndex = 0;
    const json = way.responses['200']?.content?.['application/json'];
    if (json) add($('addresses'), 'pre', JSON.stringify(sample(json.schema, all), null, 1)).tabIndex = 0;
  }
}

async function begin() {
  const key = sessionStorage.getItem('key');
  const answer = await fetch('/openapi.json', {headers: key ? {'X-API-Key': key} : {}});
  $('key-form').hidden = answer.status !== 401;
  if (answer.ok) show(await answer.json());
}

$('key-form').onsubmit = e => {
  e.preventDefault();
  sessionStorage.setItem('key', $('key').value);
  begin();
};
begin();
