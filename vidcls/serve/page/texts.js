// Every text of the page, in each of its languages. {0} is filled in.
export const TEXTS = {
  en: {
    title: 'What happens in this clip?', skip: 'To the content', language: 'Language', model: 'Model',
    give: 'Give a clip', drop: 'Drop a video here', kinds: 'MP4, MOV, WebM, MKV, AVI or GIF. Short clips work best.',
    choose: 'Choose a file', record: 'Record 5 seconds', recording: 'Recording … {0}', examples: 'Or try one of these:',
    example: 'Example {0}', cancel: 'Cancel', sending: 'Sending {0} …', thinking: 'Looking at {0} …', result: 'Answer',
    noPlayer: 'This browser cannot play the file. The service reads more kinds of files than a browser does.',
    unsure: 'Not sure', 'none of these': 'None of the known classes', nothing: 'No label',
    likeliest: 'Most likely {0}, {1}, but that is not enough for an answer.', probability: '{0} probable',
    calibrated: 'The probabilities were fitted to clips that the model was not trained on: of answers at 80 %, about 8 in 10 are right on such clips.',
    uncalibrated: 'The probabilities are not calibrated: read them as a ranking, and not as how often the model is right.',
    when: 'What happens when?', from: 'Time', what: 'What', sure: 'Probability', seen: 'The frames that the model saw',
    about: 'About this model', network: 'Network', sees: 'Sees', seesText: '{0} frames of {1} × {1} pixels',
    labels: 'Classes', licence: 'Licence of its published weights', runtime: 'Computed by', evaluated: 'How good it is',
    recordText: '{0} of {1} test clips of {2} right ({3}); with 95 % certainty between {4} and {5}.',
    noRecord: 'Not known: no evaluation was kept with this model.', unknown: 'not stated',
    map: 'What counts', noMap: 'Not shown: on {0} clips no map of this model passed its checks.',
    unjudgedMap: 'Not shown: nobody has checked the maps of this model.',
    mapOfFile: 'Not shown: a file gives probabilities only. Serve the folder that it was exported from.',
    mapText: 'A map can be shown on the frames that the model saw. On {0} clips it passed its checks: covering what it marks changes the answer more than covering other places.',
    showMap: 'Show what counted', mapSaid: 'What counted for “{0}”: yellow most, dark blue nothing.', marked: '{0}, with what counted',
    stays: 'The clip is deleted when it is answered.', docs: 'For programs',
    keyAsked: 'This service asks for its key.', keySend: 'Go on', cancelled: 'Cancelled.',
    offline: 'The service cannot be reached. Is it still running?', requestId: 'Request {0}',
    noCamera: 'The camera cannot be used: {0}', several: '{0} parts',
  },
  de: {
    title: 'Was geschieht in diesem Clip?', skip: 'Zum Inhalt', language: 'Sprache', model: 'Modell',
    give: 'Einen Clip geben', drop: 'Video hierher ziehen', kinds: 'MP4, MOV, WebM, MKV, AVI oder GIF. Am besten kurze Clips.',
    choose: 'Datei wählen', record: '5 Sekunden aufnehmen', recording: 'Aufnahme … {0}', examples: 'Oder eines von diesen:',
    example: 'Beispiel {0}', cancel: 'Abbrechen', sending: '{0} wird gesendet …', thinking: '{0} wird angesehen …', result: 'Antwort',
    noPlayer: 'Dieser Browser kann die Datei nicht abspielen. Der Dienst liest mehr Arten von Dateien als er.',
    unsure: 'Nicht sicher', 'none of these': 'Keine der bekannten Klassen', nothing: 'Kein Label',
    likeliest: 'Am ehesten {0}, {1}, aber das reicht nicht für eine Antwort.', probability: '{0} wahrscheinlich',
    calibrated: 'Die Wahrscheinlichkeiten wurden an Clips angepasst, mit denen das Modell nicht trainiert wurde: Von Antworten mit 80 % sind bei solchen Clips etwa 8 von 10 richtig.',
    uncalibrated: 'Die Wahrscheinlichkeiten sind nicht kalibriert: Sie geben eine Reihenfolge an, nicht wie oft das Modell recht hat.',
    when: 'Was geschieht wann?', from: 'Zeit', what: 'Was', sure: 'Wahrscheinlichkeit', seen: 'Die Bilder, die das Modell gesehen hat',
    about: 'Über dieses Modell', network: 'Netz', sees: 'Sieht', seesText: '{0} Bilder mit {1} × {1} Pixeln',
    labels: 'Klassen', licence: 'Lizenz der veröffentlichten Gewichte', runtime: 'Berechnet mit', evaluated: 'Wie gut es ist',
    recordText: '{0} von {1} Test-Clips aus {2} richtig ({3}); mit 95 % Sicherheit zwischen {4} und {5}.',
    noRecord: 'Nicht bekannt: Zu diesem Modell wurde keine Bewertung aufbewahrt.', unknown: 'keine Angabe',
    map: 'Was zählt', noMap: 'Nicht gezeigt: An {0} Clips hat keine Karte dieses Modells ihre Prüfungen bestanden.',
    unjudgedMap: 'Nicht gezeigt: Niemand hat die Karten dieses Modells geprüft.',
    mapOfFile: 'Nicht gezeigt: Eine Datei gibt nur Wahrscheinlichkeiten. Dafür muss der Ordner bereitstehen, aus dem sie kam.',
    mapText: 'Eine Karte kann auf den Bildern gezeigt werden, die das Modell gesehen hat. An {0} Clips hat sie ihre Prüfungen bestanden: Wird verdeckt, was sie markiert, ändert sich die Antwort stärker, als wenn andere Stellen verdeckt werden.',
    showMap: 'Zeigen, was gezählt hat', mapSaid: 'Was für „{0}“ gezählt hat: gelb am meisten, dunkelblau nichts.', marked: '{0}, mit dem, was gezählt hat',
    stays: 'Der Clip wird gelöscht, sobald er beantwortet ist.', docs: 'Für Programme',
    keyAsked: 'Dieser Dienst fragt nach seinem Schlüssel.', keySend: 'Weiter', cancelled: 'Abgebrochen.',
    offline: 'Der Dienst ist nicht erreichbar. Läuft er noch?', requestId: 'Anfrage {0}',
    noCamera: 'Die Kamera kann nicht benutzt werden: {0}', several: '{0} Teile',
  },
};

let language = 'en';

export function useLanguage(name) {
  language = name in TEXTS ? name : 'en';
  document.documentElement.lang = language;
  document.title = say('title');
  for (const e of document.querySelectorAll('[data-text]')) e.textContent = say(e.dataset.text);
  return language;
}

export function say(name, ...values) {
  return TEXTS[language][name].replace(/\{(\d)\}/g, (_, i) => values[i]);
}

export function percent(p) {
  return new Intl.NumberFormat(language, {style: 'percent', maximumFractionDigits: p > .995 && p < 1 ? 1 : 0}).format(p);
}
