// --- The page: one link, and what it feeds -------------------------------------------------------------------------------------
//
//   status (5 s) ---------------------------> leader, counts of problems
//   ports.subscribe (changes alone) --+-----> changes
//                                     +-soon-> switches.list, switches.map, migrations.list, problems, search, dialog
//
// A change on the wire says what to read again; what is shown is read from the server, which aggregates.

const call = (method, params) => link.call(method, params);
const open = (vm) => dialog.open(vm);
const link = new Link({ live, lost, connecting, refused });
const map = new AddressMap({ load: (params) => call("switches.map", params), open });
const subnets = new Subnets({ choose: chooseSubnet, shown: () => map.shown });
const search = new Search({ call, open, choose: chooseSubnet, map, subnets: () => subnets.mapped });
const dialog = new VmDialog({ call, goTo: (address, name) => search.goTo(address, name) });
const changes = new Changes({ open });
const problems = new Problems({ open, list: (limit) => call("ports.list", { problems: true, limit }) });
const migrations = new Migrations({ open, end: ({ namespace, vm }) => call("ports.list", { namespace, vm }) });

let status = null;
let updated = null;
let countdown = null;

const repeats = {
  status: new Repeat(async () => takeStatus(await call("status")), { every: 5_000, least: 1_000 }),
  switches: new Repeat(async () => takeSwitches(await call("switches.list")), { every: 15_000, least: 1_000 }),
  migrations: new Repeat(async () => takeMigrations(await call("migrations.list")), { every: 2_000, least: 300 }),
  problems: new Repeat(() => problems.refresh(), { every: 30_000, least: 1_000 }),
  search: new Repeat(() => search.refresh(), { every: 30_000, least: 1_000 }),
};

// --- the link

function live(first) {
  tellLink("live", "Live");
  tellNotice("");
  $("forget").hidden = !Link.hasToken;
  $("main").hidden = false;
  takeStatus(first);
  const taken = ({ kind, vms }) => kind === "changes" && takeChanges(vms);
  link.subscribe({ changesOnly: true }, taken).catch((error) => {
    // The panels are read again from time to time all the same.
    if (link.isLive) tellLink("wait", `Not live: ${error.message}`);
  });
  for (const repeat of Object.values(repeats)) repeat.start();
  map.start();
}

function lost(why, until) {
  for (const repeat of Object.values(repeats)) repeat.stop();
  map.stop();
  const tell = () => {
    const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1_000));
    const age = updated === null ? "" : ` What is shown is of ${clock(updated)}.`;
    tellLink("away", "Not connected");
    say($("countdown"), `next try in ${seconds} s`);
    tellNotice(`Not connected: ${why}.${age} The page connects again by itself.`);
  };
  tell();
  clearInterval(countdown);
  countdown = setInterval(tell, 1_000);
}

function connecting() {
  clearInterval(countdown);
  tellLink("wait", "Connecting");
}

function refused(why) {
  Link.keepToken(null);
  say($("ask-text"), why);
  if (!$("ask").open) $("ask").showModal();
  tellLink("away", "The API asks for its token");
}

function tellLink(state, text) {
  $("link").dataset.state = state;
  say($("link-text"), text);
  // Apart from the text, which a screen reader speaks at each change.
  say($("countdown"), "");
  $("retry").hidden = state !== "away" || $("ask").open;
}

function tellNotice(text) {
  $("notice").hidden = text === "";
  say($("notice"), text);
}

// --- the data

function takeStatus(next) {
  const wasReady = status?.ready ?? true;
  status = next;
  updated = new Date();
  showProcess(status);
  problems.counts(status.problems);
  document.title = status.ready ? `ovn-kubevirt: ${status.instance}` : `not ready - ovn-kubevirt: ${status.instance}`;
  if (status.ready && !wasReady) readAgain();
}

function takeSwitches(answer) {
  updated = new Date();
  subnets.take(answer);
  const all = subnets.mapped;
  const shown = map.shown;
  if (shown !== null && all.some(({ uuid, subnet }) => uuid === shown.uuid && subnet === shown.subnet)) return;
  const wanted = new URLSearchParams(location.hash.slice(1));
  const first = all.find((of) => of.switch === wanted.get("switch") && of.subnet === wanted.get("subnet")) ?? all[0];
  if (first === undefined) map.none("No logical switch has a subnet.");
  else chooseSubnet(first);
}

function takeMigrations(answer) {
  updated = new Date();
  return migrations.take(answer, status.southbound !== "unread");
}

function takeChanges(vms) {
  updated = new Date();
  changes.take(vms);
  dialog.changed(vms);
  readAgain();
}

function readAgain() {
  for (const repeat of Object.values(repeats)) repeat.soon();
  map.soon();
}

function chooseSubnet(of, address = null) {
  map.choose(of, address);
  history.replaceState(null, "", `#${new URLSearchParams({ switch: of.switch, subnet: of.subnet })}`);
  subnets.render();
}

// --- the hands

$("retry").addEventListener("click", () => link.connect());
$("forget").addEventListener("click", () => {
  Link.keepToken(null);
  location.reload();
});
$("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  Link.keepToken($("token").value);
  $("token").value = "";
  $("ask").close();
  link.connect();
});
// Who closes the dialog without an answer can have it again.
$("ask").addEventListener("close", () => {
  $("retry").hidden = $("link").dataset.state !== "away";
});

link.connect();
