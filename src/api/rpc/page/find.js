// --- Finding: Search, and the dialog of a VM (VmDialog) ------------------------------------------------------------------------

const FOUND = 50;

/** The field above all: it finds ports by any name or address, and what holds an address that no VM has. */
class Search {
  #call;
  #open;
  #choose;
  #map;
  #subnets;
  #timer = null;
  #asked = "";
  #results = { ports: [], address: null };

  constructor({ call, open, choose, map, subnets }) {
    this.#call = call;
    this.#open = open;
    this.#choose = choose;
    this.#map = map;
    this.#subnets = subnets;
    $("query").addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), 150);
    });
    $("search").addEventListener("submit", async (event) => {
      event.preventDefault();
      clearTimeout(this.#timer);
      await this.refresh();
      const first = this.#results.address?.address ?? this.#results.ports.flatMap(({ ips }) => ips)[0];
      const port = this.#results.ports.find(({ ips }) => ips.includes(first));
      if (first !== undefined) this.goTo(first, port?.switch ?? this.#results.address?.switch);
    });
    addEventListener("keydown", (event) => {
      const isTyping = event.target.closest?.("input, select, textarea, dialog") !== null;
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      $("query").focus();
    });
  }

  /** Shows an address on the map of its switch. */
  goTo(address, name) {
    const parsed = parseAddress(address);
    const isMeant = (of) => (name === undefined || of.switch === name) && contains(of.subnet, parsed);
    const found = this.#subnets().find(isMeant);
    if (found === undefined) {
      say($("found-count"), `${address} is in no subnet that has a map.`);
      return;
    }
    this.#choose(found, address);
    $("cells").scrollIntoView({ block: "center" });
    $("cells").focus({ preventScroll: true });
  }

  async refresh() {
    const text = $("query").value.trim();
    this.#asked = text;
    if (text === "") {
      this.#take(text, { ports: [], address: null, more: false });
      return;
    }
    try {
      const results = await this.#find(text);
      if (this.#asked === text) this.#take(text, results);
    } catch (error) {
      if (this.#asked === text) say($("found-count"), error.message);
    }
  }

  async #find(text) {
    const parsed = parseAddress(text);
    const isName = /^[a-z0-9.-]+$/i.test(text) && parsed === null;
    // A VM as this page writes it.
    const [, namespace, name] = /^([^/\s]+)\/(\S+)$/.exec(text) ?? [];
    const [byText, byNode, address] = await Promise.all([
      this.#call("ports.list", name === undefined ? { search: text, limit: FOUND } : { namespace, search: name, limit: FOUND }),
      // A node may have another name than its chassis.
      isName ? this.#call("ports.list", { node: text, limit: FOUND }) : { ports: [] },
      parsed === null ? null : this.#holder(text, parsed),
    ]);
    const ports = [...new Map([...byText.ports, ...byNode.ports].map((port) => [portName(port), port])).values()];
    return { ports, address, more: byText.nextCursor !== undefined || byNode.nextCursor !== undefined };
  }

  /** The use of one address, on the first switch that has it: on the shown one, if that does. */
  async #holder(text, parsed) {
    const shown = this.#map.shown;
    const fitting = this.#subnets().filter(({ subnet }) => contains(subnet, parsed));
    const of = fitting.find(({ uuid, subnet }) => uuid === shown?.uuid && subnet === shown?.subnet) ?? fitting[0];
    if (of === undefined) return null;
    const map = await this.#call("switches.map", { switch: of.uuid, subnet: of.subnet, from: text, to: text, cells: 1 });
    const kind = map.kinds[map.cells[0].findIndex((count) => count > 0)] ?? "free";
    const used = map.addresses[0] ?? { address: map.from, kind, holders: [] };
    return { ...used, switch: of.switch };
  }

  #take(text, results) {
    this.#results = results;
    const { ports, address, more } = results;
    $("found").hidden = text === "";
    this.#map.mark([...ports.flatMap(({ ips }) => ips), ...(address === null ? [] : [address.address])]);
    if (text === "") return;
    const items = [...(address === null ? [] : [{ address }]), ...ports.map((port) => ({ port }))];
    const count = ports.length === 0 ? "No port of a VM" : plural(ports.length, "port");
    say($("found-count"), `${count}${more ? ", and more: write more of the name" : ""}.`);
    const keyOf = (item) => (item.port === undefined ? `address ${item.address.address}` : `port ${portName(item.port)}`);
    const make = (item) => (item.port === undefined ? this.#address(item.address) : this.#port(item.port));
    show($("found-list"), items, keyOf, make);
  }

  #address(used) {
    const words = el("span", { class: "text" }, `on ${used.switch}: ${describe(used)}`);
    return el("li", null, row(code(used.address), words, this.#onMap(used.address, used.switch)));
  }

  #port(port) {
    const { network, state, problems, ips, mac, switch: name } = port;
    return el("li", null,
      row(vmButton(port, this.#open), el("span", null, network), tag(STATES[state]),
        problems.length > 0 && tag([plural(problems.length, "problem"), "bad"]),
        ips.length > 0 && this.#onMap(ips[0], name)),
      row(ips.map(code), mac !== undefined && code(mac), name !== undefined && el("span", { class: "text" }, name),
        el("span", { class: "text" }, place(port))));
  }

  #onMap(address, name) {
    const label = `${address} on the map`;
    return button("On the map", () => this.goTo(address, name), { class: "name end", "aria-label": label });
  }
}

function contains(subnet, address) {
  const { bits, first, last } = parseSubnet(subnet);
  return bits === address.bits && first <= address.value && address.value <= last;
}

/** All that is known of a VM: its ports, why they are so, and what the service waits for. */
class VmDialog {
  #call;
  #goTo;
  #vm = null;

  constructor({ call, goTo }) {
    this.#call = call;
    this.#goTo = goTo;
    $("vm-close").addEventListener("click", () => $("vm").close());
    $("vm").addEventListener("close", () => { this.#vm = null; });
    // A click beside the dialog has the dialog itself as its target.
    $("vm").addEventListener("click", (event) => event.target === $("vm") && $("vm").close());
  }

  open({ namespace, vm }) {
    this.#vm = { namespace, vm };
    say($("vm-title"), `${namespace}/${vm}`);
    $("vm-body").replaceChildren(el("p", { class: "soft" }, "The answer is awaited."));
    if (!$("vm").open) $("vm").showModal();
    return this.#refresh();
  }

  /** VMs have changed. */
  changed(vms) {
    const here = this.#vm;
    if (here !== null && vms.some(({ namespace, vm }) => namespace === here.namespace && vm === here.vm)) this.#refresh();
  }

  async #refresh() {
    const vm = this.#vm;
    try {
      const answer = await this.#call("ports.get", vm);
      if (this.#vm === vm) this.#render(answer);
    } catch (error) {
      if (this.#vm === vm) $("vm-body").replaceChildren(el("p", { role: "alert" }, error.message));
    }
  }

  #render({ ports, explanation, waitsFor }) {
    const waits = waitsFor.length === 0 ? ["Nothing."] : waitsFor;
    const list = (items) => el("ul", null, items.map((text) => el("li", { class: "text" }, text)));
    const sections = [
      el("div", null, el("h3", null, "Why it is so"), list(explanation)),
      el("div", null, el("h3", null, "Waits for"), list(waits)),
      ...ports.filter(({ network, port }) => network !== "" || port !== undefined).map((port) => this.#port(port)),
    ];
    const focused = $("vm-body").contains(document.activeElement);
    $("vm-body").replaceChildren(...sections);
    if (focused) $("vm-close").focus();
  }

  #port(port) {
    const goTo = (ip) => {
      $("vm").close();
      this.#goTo(ip, port.switch);
    };
    const addresses = port.ips.map((ip) => button(ip, () => goTo(ip), { class: "name code", title: "Show on the map" }));
    const facts = {
      Port: port.port && code(port.port),
      Switch: port.switch,
      Addresses: addresses.length > 0 && row(addresses),
      MAC: port.mac && code(port.mac),
      Place: place(port),
      "Next start": port.next && code([port.next.mac, ...port.next.ips].join(" ")),
    };
    const known = Object.entries(facts).filter(([, value]) => value);
    const problem = ({ reason, message, fault }) =>
      el("div", null, row(el("strong", null, reason), tag(FAULTS[fault])), line(message));
    return el("section", { class: "port" },
      row(el("strong", null, port.network), tag(STATES[port.state])),
      el("dl", { class: "facts" }, known.map(fact)),
      port.problems.map(problem));
  }
}
