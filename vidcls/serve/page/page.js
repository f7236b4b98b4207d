// The page of `vidcls serve`: a clip goes in, the answer is shown under it. Whatever comes from a file or a model is set as text.
import {percent, say, useLanguage} from './texts.js';

const $ = id => document.getElementById(id);
const COLOURS = ['#8fb0ff', '#ffc46b', '#8fd6a3', '#f2a3c7', '#c9b4ff', '#8ad8dc', '#e6d27a', '#f5a58a'];
const LONG_S = 10;                                  // a longer clip is asked about part by part
let models = [], request = null, clip = null, shown = null, segments = [];

// ---- talking to the service
class Refused extends Error {
  constructor(why, id) { super(why); this.id = id; }
}

function ask(method, address, body, onProgress) {
  return new Promise((resolve, reject) => {
    const x = request = new XMLHttpRequest();
    x.open(method, address);
    const key = sessionStorage.getItem('key');
    if (key) x.setRequestHeader('X-API-Key', key);
    if (onProgress) x.upload.onprogress = e => onProgress(e.lengthComputable ? e.loaded/e.total : null);
    x.onabort = () => reject(new Refused(say('cancelled')));
    x.onerror = () => reject(new Refused(say('offline')));
    x.onload = () => {
      let said = null;
      try { said = JSON.parse(x.responseText); } catch { /* no JSON: the sentence below says it */ }
      if (x.status === 401) { $('key-form').hidden = false; $('key').focus(); }
      if (x.status === 200) resolve(said);
      else reject(new Refused(said?.error ?? say('offline'), said?.request_id));
    };
    x.send(body ?? null);
  });
}

function address(path, values) {
  const model = models.length > 1 ? {model: $('model').value} : {};
  return `${path}?${new URLSearchParams({...model, ...values})}`;
}

// ---- a clip comes in
async function take(file) {
  request?.abort();
  clip = file;
  $('drop').classList.add('small');
  $('result').hidden = false;
  clear();
  if ($('video').src) URL.revokeObjectURL($('video').src);
  $('video').src = URL.createObjectURL(file);
  $('video').play().catch(() => {});
  $('file-name').textContent = file.name;
  const seconds = await lengthOf($('video'));
  if (clip !== file) return;
  if (seconds > LONG_S) return timeline(file);
  await answer(file);
  $('when').hidden = !shown;
}

function clear() {
  shown = null;
  segments = [];
  delete $('said').dataset.start;
  $('said').setAttribute('aria-live', 'polite');
  for (const id of ['said', 'bars', 'trust', 'frames', 'map-said', 'error']) $(id).replaceChildren();
  $('map').checked = false;
  for (const id of ['error', 'segments', 'timeline', 'seen', 'when', 'no-player']) $(id).hidden = true;
  showPlayer();
}

// a file that neither the browser plays nor the service reads has nothing to show
function showPlayer() { $('player').hidden = !$('no-player').hidden && !$('error').hidden; }

function lengthOf(video) {
  return new Promise(resolve => {
    video.onloadedmetadata = () => resolve(video.duration);
    video.onerror = () => { $('no-player').hidden = false; showPlayer(); resolve(0); };
    setTimeout(() => resolve(video.duration || 0), 3000);
  });
}

async function send(path, values, file, name) {
  const form = new FormData();
  form.append('file', file, name);
  $('busy').hidden = false;
  $('busy-text').textContent = say('sending', file.name);
  $('progress').removeAttribute('value');
  try {
    return await ask('POST', address(path, values), form, share => {
      if (share === null) return;
      $('progress').value = share;
      if (share === 1) {
        $('progress').removeAttribute('value');
        $('busy-text').textContent = say('thinking', file.name);
      }
    });
  } catch (e) {
    if (clip === file) showError(e);
    return null;
  } finally {
    if (clip === file) $('busy').hidden = true;
  }
}

function showError(e) {
  $('error').hidden = false;
  showPlayer();
  $('error').replaceChildren(text('p', e.message));
  if (e.id) $('error').append(text('p', say('requestId', e.id), 'quiet'));
}

// ---- the answer
async function answer(file) {
  const said = await send('/predict', {frames: true}, file, 'clip');
  if (said && clip === file) { shown = said; showAnswer(); }
}

function text(tag, words, kind) {
  const e = document.createElement(tag);
  e.textContent = words;
  if (kind) e.className = kind;
  return e;
}

function showAnswer() {
  const best = shown.top[0], box = $('said');
  if (shown.label) {
    box.replaceChildren(shown.label.split('|').join(', '), text('small', say('probability', percent(shown.score))));
  } else {
    box.replaceChildren(say(shown.reason ?? 'nothing'));
    if (best) box.append(text('small', say('likeliest', best.label, percent(best.score))));
  }
  $('bars').replaceChildren(...shown.top.map(bar));
  const about = models.find(m => m.name === shown.model);
  $('trust').textContent = about ? say(about.calibrated ? 'calibrated' : 'uncalibrated') : '';
  $('map-row').hidden = !about?.map?.method;
  $('seen').hidden = !shown.frames;
  showFrames();
}

function showFrames() {
  const map = $('map').checked ? shown.map : null, frames = map?.frames ?? shown.frames ?? [];
  $('frames').replaceChildren(...frames.map((source, i) => {
    const img = document.createElement('img'), place = `${i + 1}/${frames.length}`;
    img.src = source;
    img.alt = map ? say('marked', place) : place;
    return img;
  }));
  $('map-said').textContent = map ? say('mapSaid', map.label) : '';
}

// what counted is computed when somebody wants to see it
async function toggleMap() {
  const asked = shown;
  if ($('map').checked && !asked.map) {
    $('map').disabled = true;
    asked.map = await send('/explain', {}, clip, 'clip');
    $('map').disabled = false;
    if (!asked.map) $('map').checked = false;
  }
  if (shown === asked) showFrames();
}

function bar({label, score}) {
  const li = document.createElement('li'), svg = svgOf('svg'), rect = svgOf('rect');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(rect);
  rect.setAttribute('height', '100%');
  rect.setAttribute('width', `${100*score}%`);
  li.append(svg, text('span', label, 'name'), text('span', percent(score), 'number'));
  return li;
}

function svgOf(tag) { return document.createElementNS('http://www.w3.org/2000/svg', tag); }

// ---- what happens when
async function timeline(file) {
  const said = await send('/predict/windows', {}, file, 'clip');
  if (said && clip === file) showTimeline(said);
}

function clock(s) { return `${Math.floor(s/60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`; }

const named = s => s.label ?? say(s.reason ?? 'nothing');

function showTimeline(answer) {
  const {duration} = answer;
  segments = answer.segments;
  const names = [...new Set(segments.map(s => s.label))], track = $('track');
  for (const id of ['bars', 'trust']) $(id).replaceChildren();
  $('said').replaceChildren();
  $('said').setAttribute('aria-live', 'off');       // it changes as the video plays; the table says all of it
  for (const old of track.querySelectorAll('button')) old.remove();
  for (const s of segments) {
    const b = text('button', named(s), s.label === null ? 'none' : '');
    b.type = 'button';
    b.title = `${named(s)}, ${clock(s.start)}–${clock(s.end)}`;
    b.style.left = `${100*s.start/duration}%`;
    b.style.width = `${100*(s.end - s.start)/duration}%`;
    if (s.label !== null) b.style.background = COLOURS[names.indexOf(s.label) % COLOURS.length];
    b.onclick = () => jump(s.start);
    track.append(b);
  }
  $('segments').tBodies[0].replaceChildren(...segments.map(s => {
    const row = document.createElement('tr'), when = document.createElement('td');
    const b = text('button', `${clock(s.start)}–${clock(s.end)}`);
    b.type = 'button';
    b.onclick = () => jump(s.start);
    when.append(b);
    row.append(when, text('td', named(s)), text('td', percent(s.confidence)));
    return row;
  }));
  $('timeline').hidden = $('segments').hidden = false;
  $('when').hidden = true;
}

function jump(seconds) {
  $('video').currentTime = seconds;
  $('video').play().catch(() => {});
}

function moveMark() {
  const v = $('video');
  if (v.duration) $('mark').style.left = `${100*v.currentTime/v.duration}%`;
  const now = segments.find(s => v.currentTime >= s.start && v.currentTime < s.end);
  if (now && $('said').dataset.start !== String(now.start)) {
    $('said').dataset.start = now.start;
    $('said').replaceChildren(named(now), text('small', say('probability', percent(now.confidence))));
  }
  requestAnimationFrame(moveMark);
}

// ---- the model
async function loadModels() {
  models = await ask('GET', '/models');
  $('model').replaceChildren(...models.map(m => new Option(m.name, m.name)));
  $('model-choice').hidden = models.length < 2;
  showModel();
}

function showModel() {
  const m = models.find(x => x.name === $('model').value) ?? models[0];
  if (!m) return;
  const facts = {
    network: m.network + (m.quantized ? ` (INT8, ${m.quantized})` : ''),
    sees: say('seesText', m.spec.n_frames, m.spec.size),
    labels: m.labels.join(', '),
    evaluated: recordOf(m.record),
    licence: m.licence || say('unknown'),
    runtime: m.runtime,
    map: mapOf(m),
  };
  $('facts').replaceChildren(...Object.entries(facts).flatMap(([k, v]) => [text('dt', say(k)), text('dd', v)]));
}

function mapOf(m) {
  if (m.map) return say(m.map.method ? 'mapText' : 'noMap', m.map.n_judged);
  return say(m.runtime === 'PyTorch' ? 'unjudgedMap' : 'mapOfFile');
}

function recordOf(r) {
  if (typeof r?.video_top1 !== 'number' || !Array.isArray(r.interval)) return say('noRecord');
  const right = Math.round(r.video_top1*r.n_evaluated);
  return say('recordText', right, r.n_evaluated, r.dataset, percent(r.video_top1), ...r.interval.map(percent));
}

// ---- recording, examples
async function record() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: true});
  } catch (e) {
    $('result').hidden = false;
    clear();
    return showError(new Refused(say('noCamera', e.message)));
  }
  const recorder = new MediaRecorder(stream), parts = [];
  recorder.ondataavailable = e => parts.push(e.data);
  recorder.onstop = () => {
    for (const t of stream.getTracks()) t.stop();
    $('record').textContent = say('record');
    $('record').disabled = false;
    const kind = recorder.mimeType.split(';')[0] || 'video/webm';
    take(new File(parts, 'camera', {type: kind}));
  };
  $('record').disabled = true;
  recorder.start();
  for (let left = 5; left; left--) {
    $('record').textContent = say('recording', left);
    await new Promise(done => setTimeout(done, 1000));
  }
  recorder.stop();
}

async function loadExamples() {
  const names = await (await fetch('/page/examples.json')).json();
  $('examples').hidden = !names.length;
  $('examples').querySelector('ul').replaceChildren(...names.map(({file, label}) => {
    const li = document.createElement('li'), b = document.createElement('button'), v = document.createElement('video');
    v.src = file;
    v.muted = true;
    v.preload = 'auto';
    v.setAttribute('aria-hidden', 'true');
    v.tabIndex = -1;
    b.type = 'button';
    b.append(v, text('span', label));
    b.onclick = async () => {
      const content = await (await fetch(file)).blob();
      take(new File([content], `${label}.mp4`, {type: 'video/mp4'}));
    };
    b.onmouseenter = () => v.play().catch(() => {});
    b.onmouseleave = () => v.pause();
    li.append(b);
    return li;
  }));
}

// ---- everything together
function begin() {
  $('language').value = useLanguage(localStorage.getItem('language') ?? navigator.language.slice(0, 2));
  $('language').onchange = () => {
    localStorage.setItem('language', useLanguage($('language').value));
    showModel();
    if (shown && !segments.length) showAnswer();
  };
  $('file').onchange = () => { if ($('file').files.length) take($('file').files[0]); $('file').value = ''; };
  const drop = $('drop');
  for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop'])
    document.addEventListener(kind, e => { e.preventDefault(); drop.classList.toggle('over', kind.startsWith('drage') || kind === 'dragover'); });
  document.addEventListener('drop', e => { if (e.dataTransfer.files.length) take(e.dataTransfer.files[0]); });
  $('record').hidden = !(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
  $('record').onclick = record;
  $('cancel').onclick = () => request?.abort();
  $('when').onclick = () => timeline(clip);
  $('map').onchange = toggleMap;
  $('model').onchange = () => { showModel(); if (clip) take(clip); };
  $('key-form').onsubmit = e => {
    e.preventDefault();
    sessionStorage.setItem('key', $('key').value);
    $('key-form').hidden = true;
    loadModels().catch(showOutside);
  };
  moveMark();
  loadModels().catch(showOutside);
  loadExamples().catch(() => {});
}

function showOutside(e) {
  if (!$('key-form').hidden) return;                 // the key is asked for
  $('result').hidden = false;
  showError(e);
}

begin();
