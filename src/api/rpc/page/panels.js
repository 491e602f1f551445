// --- The panels: showProcess, Subnets, Migrations, Problems, Changes ----------------------------------------------------------

/** Data of a watch or a database that is older is told. The service itself is not ready then. */
const OLD = 30;

/** The role of the process, what it waits for, and its facts. */
function showProcess(status) {
  const { role, leader, northbound, southbound, watches, version, instance, uptimeSeconds, subscriptions } = status;
  const roles = {
    leading: ["This process leads and writes.", ["leading", "good"]],
    following: [`${leader ?? "Another process"} leads; this process follows.`, ["following", "good"]],
    none: [`This process is not ready${leader === undefined ? "" : `; ${leader} leads`}.`, ["not ready", "bad"]],
  };
  const [sentence, badge] = roles[role];
  if ($("role").dataset.print !== sentence) {
    $("role").dataset.print = sentence;
    $("role").replaceChildren(tag(badge), el("span", { class: "text" }, sentence));
  }
  const waits = waitsOf(status);
  if (waits.length === 0) {
    const takesOver = "The end of the leader: then another process takes over.";
    waits.push(role === "following" ? takesOver : "Nothing. It writes as VMs change.");
  }
  show($("waits"), waits, (text) => text, (text) => el("li", { class: "text" }, text));
  say($("instance"), `instance ${instance}, version ${version}`);
  const ages = watches.map(({ ageSeconds }) => ageSeconds).filter((age) => age !== undefined);
  const words = { synced: "in sync", away: "away", unread: "not read" };
  const facts = {
    Ports: number(northbound.ports),
    VMs: number(northbound.vms),
    Northbound: northbound.silentSeconds === undefined ? "none yet" : `${span(northbound.silentSeconds)} ago`,
    Southbound: words[southbound],
    "Oldest watch": ages.length < watches.length ? "not read yet" : `${span(Math.max(0, ...ages))} ago`,
    "Running for": span(uptimeSeconds),
    Subscriptions: number(subscriptions),
  };
  show($("facts"), Object.entries(facts), ([name]) => name, fact);
}

function waitsOf({ ready, reason, remark, northbound, southbound, watches }) {
  const unread = watches.filter(({ ageSeconds }) => ageSeconds === undefined).map(({ kind }) => kind);
  const old = watches.filter(({ ageSeconds }) => ageSeconds > OLD);
  const silent = old.map(({ kind, ageSeconds }) => `${kind} (${span(ageSeconds)})`);
  return [
    !ready && (reason ?? "It is not ready."),
    remark,
    unread.length > 0 && `The first list of ${unread.join(", ")} from the API server.`,
    silent.length > 0 && `Word from the API server on ${silent.join(", ")}.`,
    northbound.silentSeconds > OLD && `Word from the northbound database, silent for ${span(northbound.silentSeconds)}.`,
    southbound === "away" && "The southbound database, which is away: what was last read counts.",
  ].filter((text) => text);
}

/** The list of subnets, of which one is on the map. */
class Subnets {
  #choose;
  #shown = () => null;
  #items = [];
  #most = 100;

  constructor({ choose, shown }) {
    this.#choose = choose;
    this.#shown = shown;
    $("order").addEventListener("change", () => this.render());
    $("more-subnets").addEventListener("click", () => {
      this.#most += 400;
      this.render();
    });
  }

  take({ switches }) {
    this.#items = switches.flatMap(({ name, uuid, subnets, trouble }) => {
      const rows = subnets.map(({ subnet, counts }) => ({ name, uuid, subnet, counts, trouble: null }));
      return trouble === undefined ? rows : [...rows, { name, uuid, subnet: null, counts: null, trouble }];
    });
    this.render();
  }

  /** The subnets that have a map, in the order of their names. */
  get mapped() {
    return this.#items.filter(({ subnet }) => subnet !== null).map(({ name, uuid, subnet }) => ({ switch: name, uuid, subnet }));
  }

  render() {
    const shown = this.#shown();
    const isShown = ({ uuid, subnet }) => subnet !== null && uuid === shown?.uuid && subnet === shown.subnet;
    const items = this.#items.map((item) => ({ ...item, current: isShown(item) }));
    if ($("order").value === "full") items.sort((one, other) => share(other.counts) - share(one.counts));
    const list = items.slice(0, this.#most);
    const make = (item) => (item.subnet === null ? this.#trouble(item) : this.#subnet(item));
    show($("subnet-list"), list, ({ uuid, subnet }) => `${uuid} ${subnet}`, make);
    say($("subnets-count"), items.length === 0 ? "There is no logical switch." : "");
    const more = items.length - list.length;
    $("more-subnets").hidden = more <= 0;
    say($("more-subnets"), `Show ${number(more)} more`);
  }

  #trouble({ name, trouble }) {
    return el("li", null, row(el("strong", { class: "text" }, name), tag(["settings", "bad"])), line(trouble));
  }

  #subnet({ name, uuid, subnet, counts, current }) {
    const { vms, others, held, all } = use(counts);
    const part = (className, count) => {
      const bar = el("i", { class: className });
      bar.style.width = `${(100 * count) / all}%`;
      return count > 0 && bar;
    };
    const tone = held / all >= 0.95 ? ["nearly full", "bad"] : ["filling", "busy"];
    return el("li", { "aria-current": current && "true" },
      row(button(`${name} ${subnet}`, () => this.#choose({ switch: name, uuid, subnet })),
        held / all >= 0.8 && tag(tone),
        counts.conflict > 0 && tag([plural(counts.conflict, "conflict"), "bad"]),
        end(percent(held, all))),
      el("div", { class: "bar", "aria-hidden": "true" },
        part("conflicts", counts.conflict), part("vms", vms - counts.conflict), part("others", others)),
      el("p", { class: "hint" }, `${number(vms)} of VMs, ${number(others)} of others, ${number(counts.free)} free`));
  }
}

/** The parts of a subnet that count as its use: as the command line has it. */
function use(counts) {
  const vms = counts.vm + counts.reserved + counts.retained + counts.conflict;
  const others = counts.foreign + counts.service;
  const held = vms + others;
  return { vms, others, held, all: Math.max(1, held + counts.free + counts.resting) };
}

function share(counts) {
  if (counts === null) return 2;
  const { held, all } = use(counts);
  return held / all;
}

function percent(held, all) {
  const value = (100 * held) / all;
  return held > 0 && value < 0.1 ? "<0.1 % used" : `${value.toFixed(1)} % used`;
}

const STEPS = {
  waiting: "no target pod on a node yet",
  opening: "target known, port opens there",
  open: "open on the target, waits for the guest",
  claimed: "claimed by the target's chassis, waits for the guest",
  activated: "the target has seen the guest",
  arrived: "the guest is ready on the target",
};

/** Steps that are known with the southbound database alone. */
const OF_SOUTHBOUND = ["claimed", "activated"];

/** How long a migration that has ended stays on the page. */
const ENDED_FOR = 60_000;

/** The migrations that run, and for a while those that have ended. */
class Migrations {
  #open;
  #end;
  #running = new Map();
  #ended = new Map();

  /** `end(vm)` gives the ports of a VM whose migration has ended. */
  constructor({ open, end }) {
    this.#open = open;
    this.#end = end;
  }

  async take({ migrations }, readsSouthbound) {
    const now = Date.now();
    const since = (one) => this.#running.get(migrationName(one))?.since ?? now;
    const current = new Map(migrations.map((one) => [migrationName(one), { ...one, since: since(one) }]));
    const gone = [...this.#running].filter(([key]) => !current.has(key));
    this.#running = current;
    for (const [key, one] of gone) this.#ended.set(key, { ...one, at: now, place: null });
    for (const [key, { at }] of this.#ended) if (now - at > ENDED_FOR || current.has(key)) this.#ended.delete(key);
    this.#render(readsSouthbound);
    for (const [key, one] of gone) {
      const { ports } = await this.#end(one);
      const ended = this.#ended.get(key);
      if (ended !== undefined) ended.place = ports.length === 0 ? "its ports are gone" : place(ports[0]);
    }
    if (gone.length > 0) this.#render(readsSouthbound);
  }

  #render(readsSouthbound) {
    const running = [...this.#running.values()];
    const count = running.length === 0 ? "No migration runs." : `${plural(running.length, "migration runs", "migrations run")}.`;
    say($("migrations-count"), count);
    // An item is made anew as its time goes on.
    const age = ({ since }) => span((Date.now() - since) / 1_000);
    const items = [
      ...running.slice(0, 100).map((one) => ({ ...one, age: age(one), readsSouthbound })),
      ...[...this.#ended.values()].reverse().slice(0, 20),
    ];
    show($("migration-list"), items, migrationName, (item) => this.#item(item));
  }

  #item(item) {
    const { migration, phase, source, target, step, age, at, place: where, readsSouthbound } = item;
    const way = line("from ", code(source ?? "an unknown node"), " to ", code(target ?? "a node that is not chosen yet"));
    const head = (badge, when) => row(vmButton(item, this.#open), tag(badge), end(when));
    if (at !== undefined) {
      const words = where === null ? "It has ended." : `It has ended: ${where}.`;
      return el("li", null, head(["ended", "soft"], clock(new Date(at))), way, line(words));
    }
    const steps = Object.keys(STEPS).filter((name) => readsSouthbound || !OF_SOUTHBOUND.includes(name));
    const here = steps.indexOf(step);
    const list = el("ol", { class: "steps", "aria-label": "Steps of the ports" }, steps.map((name, index) =>
      el("li", { class: index < here && "past", "aria-current": index === here && "step" }, el("span", null, name))));
    return el("li", null,
      head([`KubeVirt: ${phase || "no phase"}`, "busy"], `seen for ${age}`),
      way, list, el("p", null, STEPS[step]), el("p", { class: "hint text" }, migration));
  }
}

const migrationName = (one) => `${vmName(one)}/${one.migration}`;

/** The problems of all VMs, with their remedies. */
class Problems {
  #open;
  #list;
  #most = 50;

  /** `list(limit)` gives ports with problems. */
  constructor({ open, list }) {
    this.#open = open;
    this.#list = list;
    $("more-problems").addEventListener("click", () => {
      this.#most = Math.min(this.#most + 200, 2_000);
      this.refresh().catch(() => {});
    });
  }

  counts(problems) {
    const reasons = Object.entries(problems);
    const all = reasons.reduce((sum, [, count]) => sum + count, 0);
    say($("problems-count"), all === 0 ? "No VM has a problem." : `${plural(all, "problem")} of VMs. Each says what to do.`);
    reasons.sort(([, one], [, other]) => other - one);
    const chip = ([reason, count]) => el("li", null, reason, " ", el("b", null, number(count)));
    show($("reasons"), reasons, ([reason]) => reason, chip);
  }

  async refresh() {
    const { ports, nextCursor } = await this.#list(this.#most);
    const items = ports.flatMap(({ namespace, vm, network, problems }) =>
      problems.map((problem) => ({ ...problem, namespace, vm, network })));
    const faults = Object.keys(FAULTS);
    items.sort((one, other) => faults.indexOf(one.fault) - faults.indexOf(other.fault));
    const keyOf = (item) => `${portName(item)} ${item.reason} ${item.message}`;
    show($("problem-list"), items, keyOf, (item) => this.#item(item));
    $("more-problems").hidden = nextCursor === undefined || this.#most >= 2_000;
  }

  #item(item) {
    const { network, reason, message, fault } = item;
    return el("li", null,
      row(vmButton(item, this.#open), network !== "" && el("span", null, network), tag(FAULTS[fault]), end(reason)),
      line(message));
  }
}

/** The VMs that have changed last, and their number in the last minute. */
class Changes {
  #open;
  #last = [];
  #times = [];
  #count = 0;
  #untold = [];
  #timer = null;

  constructor({ open }) {
    this.#open = open;
    setInterval(() => this.#tell(), 5_000);
    this.#render();
  }

  take(vms) {
    const time = Date.now();
    this.#times.push({ time, count: vms.length });
    for (const { namespace, vm, ports } of vms.slice(-50)) {
      this.#count += 1;
      const text = ports.length === 0 ? "has no port any more" : ports.map(summary).join("; ");
      const problems = ports.reduce((sum, port) => sum + port.problems.length, 0);
      this.#last.unshift({ id: this.#count, time, namespace, vm, text, problems });
      this.#untold.push(`${namespace}/${vm}: ${text}`);
    }
    this.#last.length = Math.min(this.#last.length, 50);
    this.#timer ??= setTimeout(() => this.#render(), 300);
  }

  #render() {
    this.#timer = null;
    const since = Date.now() - 60_000;
    this.#times = this.#times.filter(({ time }) => time > since);
    const recent = this.#times.reduce((sum, { count }) => sum + count, 0);
    const count = recent === 0 ? "No VM has changed" : `${plural(recent, "change")} of VMs`;
    say($("changes-count"), `${count} in the last minute.`);
    show($("change-list"), this.#last, ({ id }) => String(id), (change) => this.#item(change));
  }

  #item(change) {
    const { time, text, problems } = change;
    const badge = problems > 0 && tag([plural(problems, "problem"), "bad"]);
    return el("li", null, row(vmButton(change, this.#open), badge, end(clock(new Date(time)))), line(text));
  }

  /** Tells a screen reader, with a pace. */
  #tell() {
    const [first, ...others] = this.#untold.splice(0);
    const more = others.length === 0 ? "" : `; and ${plural(others.length, "other change")}`;
    if (first !== undefined) say($("told"), `${first}${more}`);
    this.#render();
  }
}

/** A port in a line. */
function summary(port) {
  const { network, ips, mac } = port;
  const name = network === "" ? "the VM" : network;
  return [name, ips.join(" and ") || mac, place(port)].filter((part) => part).join(", ");
}
