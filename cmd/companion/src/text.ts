// The one catalogue of words. German must have every key of English: the compiler checks it.
import { signal } from '@preact/signals'

const en = {
  house: 'House', add: 'Add', people: 'People and devices', activity: 'Activity', settings: 'Settings', panel: 'Panel', skip: 'To the content', menu: 'Screens',
  starting: 'Looking for your home…', offline: 'No device of the home answers. Trying again…', noCalls: 'This page cannot call yet. Trying again…',
  noRoom: 'Without a room', emptyRoom: 'No device yet', persons: 'People', callRoom: 'Call {name}', emptyHome: 'No room yet. Add a device first.',
  free: 'Free', inCall: 'In a call', undisturbed: 'Do not disturb', away: 'Away', 'Do Not Disturb': 'Does not want to be disturbed',
  reachable: 'Ready', unreachable: 'Not reachable', neverSeen: 'Never seen yet', present: 'In sight', thisPhone: 'You',
  canTalkSee: 'Talk and see', canTalk: 'Talk', canWatch: 'Watch', canListen: 'Listen', canShow: 'Shows pictures', canPlay: 'Plays sound', canNothing: 'No sound or picture',
  calling: 'Calling {name}…', ringsYou: '{name} is calling', from: 'From: {room}', talking: 'In a call with {name}', ended: 'The call has ended', elsewhere: 'Answered on another device', took: '{name} took it',
  accept: 'Accept with picture', acceptSound: 'Accept without picture', decline: 'Decline', hangUp: 'Hang up', mute: 'Mute', unmute: 'Unmute', cameraOff: 'Camera off', cameraOn: 'Camera on',
  hold: 'Hold', resume: 'Resume', keypad: 'Keypad', close: 'Close', onHold: 'On hold', heldThere: 'The other side has put you on hold', yourPicture: 'Your picture', theirPicture: 'Picture of {name}',
  good: 'Good connection', fair: 'The connection is a little weak', poor: 'Weak connection', silent: 'Nothing arrives right now', notAllowed: 'The browser may not use camera or microphone. Allow it in the settings of this page.', notFound: 'This device has no camera or microphone that can be used.',
  Busy: 'Busy', Rejected: 'Declined', Unavailable: 'Nobody answers', 'No Answer': 'Nobody answers', Canceled: 'The caller has hung up', 'Not Found': 'Nobody has this name', Terminated: '', 'Connection Error': 'The connection was lost', 'Request Timeout': 'No answer',
  pairTitle: 'Make this your phone', pairIntro: 'On a device of the home, run “hallway phone”, or let an owner invite you in the app. Then scan the code or type it.', phoneName: 'What is this phone called?', myPhone: 'My phone',
  scan: 'Scan', stopScan: 'Stop the camera', typeCode: 'Code', next: 'Next', pair: 'Pair', waiting: 'Confirm it on the device. Both must show these words:', noCode: 'This is no code of Hallway.', cameraView: 'What the camera sees',
  addTitle: 'Add a device', addIntro: 'Scan the code on the new device, or type it.', itsName: 'Name', itsRoom: 'Room', newRoom: 'New room…', added: '{name} belongs to the home.', isDevice: '{is} that calls itself “{name}”', identifying: 'Asking the device what it is…', isCamera: 'A camera (RTSP)', isPhone: 'An invitation for a phone. Open it with that phone.',
  addCamera: 'Add a camera', uri: 'Address', uriHint: 'rtsp://user:password@address/path. The password stays with the device that speaks for the camera.', inSight: 'In sight', nothingInSight: 'Nothing else is in sight.', ownersOnly: 'Only an owner can do this.', again: 'Add another', back: 'Back', working: 'One moment…',
  role: 'Role', owner: 'Owner', member: 'Member', guest: 'Guest', device: 'Device', until: 'Until', phones: 'Phones', noPhone: 'No phone', devices: 'Devices', rename: 'Rename', remove: 'Remove', save: 'Save', cancel: 'Cancel', changed: 'Changed.',
  removeTitle: 'Remove {name}?', removeDevice: 'It is refused by every device within seconds; calls and pictures with it end. It can come back only by being added anew.', removePhone: 'It is signed out within seconds on every device, and calls on it end. It can come back only by a new invitation.', removeName: 'The name ends. It is not given to anything else later.', removed: '{name} was removed.', proposed: 'Another owner must agree. You can carry it out alone from {when}.',
  invite: 'Invite a person', panelRoom: 'For a wall panel: a call to the room rings there.', invitePhone: 'Another phone', makeInvite: 'Make an invitation', inviteShow: 'Let the new phone scan this, or open {host} and type the code.', inviteWaits: '“{phone}” wants in. Does it show the words “{words}”?', letIn: 'Let it in', refuse: 'Refuse', invitePaired: '{name} is in.', inviteClosed: 'The invitation has ended.', qr: 'QR code of the invitation',
  safe: 'Is my home safe?', check: 'Check', safeOwners: 'More than one owner: {names}. Losing one loses nothing.', safeOneOwner: 'Only one owner: {names}. If it is lost, only the recovery code helps.', safePlain: 'Without encryption between them and the device that speaks for them: {names}.', safeNoPlain: 'Everything in the home is encrypted.', safeDropIn: 'May be opened without a person accepting: {names}.', safeNoDropIn: 'Nobody may drop in.', safeRemovals: 'Another owner wants to remove: {names}.', safeUnseen: 'Added, but never seen: {names}.', safeGuests: 'Guests without a last day: {names}.', safePush: 'A service outside the home is told when these are called, to wake a phone: {names}.', fine: 'Fine', look: 'Look at this', bad: 'Wrong',
  calls: 'Calls', noCallsYet: 'No call yet.', homeLog: 'What changed in the home', missed: 'missed', incoming: 'from {name}', outgoing: 'to {name}', without: 'without effect: {why}', by: 'by {name}', callsOf: 'Calls of {name}',
  notifications: 'Notifications', wakeOn: 'Wake this phone when somebody calls', wakeHelp: 'Also while this page is closed. A service of the browser’s maker then learns when this phone is called, but not by whom. It works at home: a phone elsewhere is told, but cannot answer.', wakeNot: 'This browser cannot be woken. On an iPhone, put the app on the home screen first.', wakeDenied: 'The browser may not show notifications. Allow it in the settings of this page.', somebodyCalls: 'Somebody calls. Tap to see who.',
  language: 'Language', automatic: 'As the browser', dnd: 'Do not disturb', dndOn: 'This phone does not ring', dndHelp: 'Whoever calls is told that you do not want to be disturbed.', dndRule: 'A rule of the home keeps all your phones from ringing.', dropIn: 'Who may drop in', dropInHelp: 'Whoever may drop in hears and sees a room without anybody accepting. A tone is always played.', nobody: 'Nobody', everybody: 'Everybody', whole: 'The whole home', where: 'Where', who: 'Who', ruleEnds: 'End it',
  account: 'This phone', signedAs: 'Signed in as {name} ({role}), through {device}.', signOut: 'Sign out', signIn: 'Sign in', forget: 'Forget this phone', forgetHelp: 'The key of this phone is thrown away. It can come back only by a new invitation.', openPanel: 'Use as a wall panel',
  arm: 'Start the panel', armHelp: 'One tap lets this panel ring. Then it stays by itself.', tapSound: 'Tap once to let it ring', ready: 'Ready', notReady: 'Connecting…',
}
export type Key = keyof typeof en

const de: Record<Key, string> = {
  house: 'Haus', add: 'Hinzufügen', people: 'Personen und Geräte', activity: 'Verlauf', settings: 'Einstellungen', panel: 'Wandtafel', skip: 'Zum Inhalt', menu: 'Ansichten',
  starting: 'Dein Zuhause wird gesucht…', offline: 'Kein Gerät des Zuhauses antwortet. Neuer Versuch…', noCalls: 'Diese Seite kann noch nicht anrufen. Neuer Versuch…',
  noRoom: 'Ohne Raum', emptyRoom: 'Noch kein Gerät', persons: 'Personen', callRoom: '{name} anrufen', emptyHome: 'Noch kein Raum. Füge zuerst ein Gerät hinzu.',
  free: 'Frei', inCall: 'Im Gespräch', undisturbed: 'Nicht stören', away: 'Abwesend', 'Do Not Disturb': 'Möchte nicht gestört werden',
  reachable: 'Bereit', unreachable: 'Nicht erreichbar', neverSeen: 'Noch nie gesehen', present: 'In Sicht', thisPhone: 'Du',
  canTalkSee: 'Sprechen und sehen', canTalk: 'Sprechen', canWatch: 'Zusehen', canListen: 'Zuhören', canShow: 'Zeigt Bilder', canPlay: 'Spielt Ton', canNothing: 'Weder Ton noch Bild',
  calling: '{name} wird gerufen…', ringsYou: '{name} ruft an', from: 'Aus: {room}', talking: 'Im Gespräch mit {name}', ended: 'Das Gespräch ist zu Ende', elsewhere: 'An einem anderen Gerät angenommen', took: '{name} hat angenommen',
  accept: 'Mit Bild annehmen', acceptSound: 'Ohne Bild annehmen', decline: 'Ablehnen', hangUp: 'Auflegen', mute: 'Stumm', unmute: 'Laut', cameraOff: 'Kamera aus', cameraOn: 'Kamera an',
  hold: 'Halten', resume: 'Weiter', keypad: 'Tasten', close: 'Schließen', onHold: 'Gehalten', heldThere: 'Die andere Seite hält das Gespräch', yourPicture: 'Dein Bild', theirPicture: 'Bild von {name}',
  good: 'Gute Verbindung', fair: 'Die Verbindung ist etwas schwach', poor: 'Schwache Verbindung', silent: 'Gerade kommt nichts an', notAllowed: 'Der Browser darf Kamera oder Mikrofon nicht benutzen. Erlaube es in den Einstellungen dieser Seite.', notFound: 'Dieses Gerät hat keine brauchbare Kamera oder kein Mikrofon.',
  Busy: 'Besetzt', Rejected: 'Abgelehnt', Unavailable: 'Niemand antwortet', 'No Answer': 'Niemand antwortet', Canceled: 'Der Anrufer hat aufgelegt', 'Not Found': 'Niemand heißt so', Terminated: '', 'Connection Error': 'Die Verbindung ging verloren', 'Request Timeout': 'Keine Antwort',
  pairTitle: 'Mach dies zu deinem Telefon', pairIntro: 'Rufe auf einem Gerät des Zuhauses „hallway phone“ auf, oder lass dich in der App einladen. Dann scanne den Code oder tippe ihn.', phoneName: 'Wie heißt dieses Telefon?', myPhone: 'Mein Telefon',
  scan: 'Scannen', stopScan: 'Kamera anhalten', typeCode: 'Code', next: 'Weiter', pair: 'Verbinden', waiting: 'Bestätige es am Gerät. Beide müssen diese Wörter zeigen:', noCode: 'Das ist kein Code von Hallway.', cameraView: 'Was die Kamera sieht',
  addTitle: 'Gerät hinzufügen', addIntro: 'Scanne den Code am neuen Gerät, oder tippe ihn.', itsName: 'Name', itsRoom: 'Raum', newRoom: 'Neuer Raum…', added: '{name} gehört zum Zuhause.', isDevice: '{is}, nennt sich „{name}“', identifying: 'Das Gerät wird gefragt, was es ist…', isCamera: 'Eine Kamera (RTSP)', isPhone: 'Eine Einladung für ein Telefon. Öffne sie mit dem Telefon.',
  addCamera: 'Kamera hinzufügen', uri: 'Adresse', uriHint: 'rtsp://name:passwort@adresse/pfad. Das Passwort bleibt bei dem Gerät, das für die Kamera spricht.', inSight: 'In Sicht', nothingInSight: 'Sonst ist nichts in Sicht.', ownersOnly: 'Das kann nur ein Eigentümer.', again: 'Noch eins', back: 'Zurück', working: 'Einen Moment…',
  role: 'Rolle', owner: 'Eigentümer', member: 'Mitglied', guest: 'Gast', device: 'Gerät', until: 'Bis', phones: 'Telefone', noPhone: 'Kein Telefon', devices: 'Geräte', rename: 'Umbenennen', remove: 'Entfernen', save: 'Speichern', cancel: 'Abbrechen', changed: 'Geändert.',
  removeTitle: '{name} entfernen?', removeDevice: 'Jedes Gerät weist es binnen Sekunden ab; Gespräche und Bilder damit enden. Es kommt nur zurück, wenn es neu hinzugefügt wird.', removePhone: 'Es wird binnen Sekunden überall abgemeldet, Gespräche darauf enden. Es kommt nur mit einer neuen Einladung zurück.', removeName: 'Der Name endet. Er wird später nicht neu vergeben.', removed: '{name} ist entfernt.', proposed: 'Ein anderer Eigentümer muss zustimmen. Allein geht es ab {when}.',
  invite: 'Person einladen', panelRoom: 'Für eine Wandtafel: ein Anruf im Raum klingelt dort.', invitePhone: 'Weiteres Telefon', makeInvite: 'Einladung machen', inviteShow: 'Lass das neue Telefon dies scannen, oder öffne {host} und tippe den Code.', inviteWaits: '„{phone}“ will herein. Zeigt es die Wörter „{words}“?', letIn: 'Hereinlassen', refuse: 'Abweisen', invitePaired: '{name} ist da.', inviteClosed: 'Die Einladung ist zu Ende.', qr: 'QR-Code der Einladung',
  safe: 'Ist mein Zuhause sicher?', check: 'Prüfen', safeOwners: 'Mehr als ein Eigentümer: {names}. Geht einer verloren, geht nichts verloren.', safeOneOwner: 'Nur ein Eigentümer: {names}. Geht er verloren, hilft nur der Wiederherstellungscode.', safePlain: 'Unverschlüsselt bis zu dem Gerät, das für sie spricht: {names}.', safeNoPlain: 'Alles im Zuhause ist verschlüsselt.', safeDropIn: 'Darf ohne Annehmen geöffnet werden: {names}.', safeNoDropIn: 'Niemand darf sich zuschalten.', safeRemovals: 'Ein anderer Eigentümer will entfernen: {names}.', safeUnseen: 'Hinzugefügt, aber nie gesehen: {names}.', safeGuests: 'Gäste ohne letzten Tag: {names}.', safePush: 'Ein Dienst außerhalb erfährt, wann sie angerufen werden, um ein Telefon zu wecken: {names}.', fine: 'In Ordnung', look: 'Sieh nach', bad: 'Falsch',
  calls: 'Gespräche', noCallsYet: 'Noch kein Gespräch.', homeLog: 'Was sich im Zuhause geändert hat', missed: 'verpasst', incoming: 'von {name}', outgoing: 'an {name}', without: 'ohne Wirkung: {why}', by: 'durch {name}', callsOf: 'Gespräche von {name}',
  notifications: 'Benachrichtigungen', wakeOn: 'Dieses Telefon wecken, wenn jemand anruft', wakeHelp: 'Auch wenn diese Seite zu ist. Ein Dienst des Browser-Herstellers erfährt dann, wann dieses Telefon angerufen wird, aber nicht von wem. Es wirkt zu Hause: anderswo erfährt es das Telefon, kann aber nicht annehmen.', wakeNot: 'Dieser Browser lässt sich nicht wecken. Auf einem iPhone lege die App zuerst auf den Home-Bildschirm.', wakeDenied: 'Der Browser darf keine Benachrichtigungen zeigen. Erlaube es in den Einstellungen dieser Seite.', somebodyCalls: 'Jemand ruft an. Tippe, um zu sehen, wer.',
  language: 'Sprache', automatic: 'Wie der Browser', dnd: 'Nicht stören', dndOn: 'Dieses Telefon klingelt nicht', dndHelp: 'Wer anruft, erfährt, dass du nicht gestört werden möchtest.', dndRule: 'Eine Regel des Zuhauses lässt keines deiner Telefone klingeln.', dropIn: 'Wer sich zuschalten darf', dropInHelp: 'Wer sich zuschalten darf, hört und sieht einen Raum, ohne dass jemand annimmt. Es ertönt immer ein Ton.', nobody: 'Niemand', everybody: 'Alle', whole: 'Das ganze Zuhause', where: 'Wo', who: 'Wer', ruleEnds: 'Beenden',
  account: 'Dieses Telefon', signedAs: 'Angemeldet als {name} ({role}), über {device}.', signOut: 'Abmelden', signIn: 'Anmelden', forget: 'Dieses Telefon vergessen', forgetHelp: 'Der Schlüssel dieses Telefons wird weggeworfen. Es kommt nur mit einer neuen Einladung zurück.', openPanel: 'Als Wandtafel benutzen',
  arm: 'Wandtafel starten', armHelp: 'Ein Tippen lässt die Tafel klingeln. Danach bleibt sie von selbst.', tapSound: 'Einmal tippen, damit es klingelt', ready: 'Bereit', notReady: 'Verbindet…',
}

export type Language = '' | 'en' | 'de'
export const chosen = signal<Language>((localStorage.getItem('language') as Language) ?? '')

export function choose(l: Language) {
  chosen.value = l
  localStorage.setItem('language', l)
  document.documentElement.lang = language()
}

export function language(): 'en' | 'de' {
  return chosen.value || (navigator.language.startsWith('de') ? 'de' : 'en')
}

/** The words of a key, with what they speak about. */
export function t(key: Key, about: Record<string, string> = {}): string {
  const words = (language() === 'de' ? de : en)[key]
  return words.replace(/\{(\w+)\}/g, (all, name) => about[name] ?? all)
}

/** Words of a key that the other side chose; others are shown as they came. */
export function said(word: string): string {
  return Object.hasOwn(en, word) ? t(word as Key) : word
}

export const when = (at: string | number) => new Intl.DateTimeFormat(language(), { dateStyle: 'short', timeStyle: 'short' }).format(new Date(at))
