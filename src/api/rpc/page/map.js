// --- The map of a subnet: AddressMap ------------------------------------------------------------------------------------------

/** How long a change is framed. */
const FRAMED = 2_500;
const ROWS_OF_TABLE = 500;

/**
 * The map of one subnet: an overview of cells with many addresses each, and below it windows down to single addresses.
 *
 * `load(params)` gives a map of the API; `open(address, holders)` shows who holds an address.
 */
class AddressMap {
  #load;
  #open;
  #palette = new Palette(document.body);
  #repeat = new Repeat(() => this.#refresh(), { every: 10_000, least: 500 });
  /** The subnet `{ switch, uuid, subnet }`, and the window in it: null for the overview. */
  #of = null;
  #window = null;
  #trail = [];
  #map = null;
  #place = null;
  #cursor = 0;
  /** Where the cursor goes once the map is there. */
  #aim = null;
  #alone = null;
  #wanted = [];
  #changed = new Map();
  #width = 0;

  constructor({ load, open }) {
    this.#load = load;
    this.#open = open;
    const cells = $("cells");
    cells.addEventListener("keydown", (event) => this.#key(event));
    cells.addEventListener("focus", () => this.#draw());
    cells.addEventListener("blur", () => this.#draw());
    $("canvas").addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#tell(this.#at(event)));
    $("canvas").addEventListener("pointerleave", () => this.#tell(this.#cursor));
    $("canvas").addEventListener("click", (event) => this.#click(this.#at(event)));
    $("out").addEventListener("click", () => this.#go(null));
    $("back").addEventListener("click", () => this.#back());
    $("lower").addEventListener("click", () => this.#shift(-1n));
    $("higher").addEventListener("click", () => this.#shift(1n));
    $("used").addEventListener("toggle", () => this.#list());
    new ResizeObserver(() => this.#resized()).observe(cells);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#palette = new Palette(document.body);
      this.#draw();
      this.#legend();
    });
  }

  get shown() {
    return this.#of;
  }

  start() {
    if (this.#of !== null) this.#repeat.start();
  }

  stop() {
    this.#repeat.stop();
  }

  /** Something has changed on the switch. */
  soon() {
    this.#repeat.soon();
  }

  /** Shows a subnet, and of it the surroundings of an address where one is given. */
  choose(of, address = null) {
    const isOther = this.#of?.uuid !== of.uuid || this.#of?.subnet !== of.subnet;
    this.#of = of;
    if (isOther) {
      this.#map = null;
      this.#trail = [];
      this.#window = null;
      this.#cursor = 0;
      this.#aim = null;
    }
    if (address === null) return this.#go(null);
    this.#aim = parseAddress(address);
    return this.#go(this.#around(this.#aim.value, BigInt(budget(this.#width))));
  }

  /** No subnet has a map. */
  none(why) {
    this.stop();
    this.#of = null;
    this.#map = null;
    say($("map-title"), "Addresses");
    say($("map-range"), why);
  }

  /** Frames these addresses. */
  mark(addresses) {
    this.#wanted = addresses;
    this.#draw();
  }

  // --- the view

  #around(value, size) {
    const { first, last } = parseSubnet(this.#of.subnet);
    const from = first + ((value - first) / size) * size;
    const to = from + size - 1n;
    return { from, to: to < last ? to : last };
  }

  #go(window) {
    if (this.#of === null) return;
    const print = ({ from, to }) => `${from} ${to}`;
    const isOther = (window === null) !== (this.#window === null) || (window !== null && print(window) !== print(this.#window));
    if (isOther) this.#trail.push(this.#window);
    this.#window = window;
    this.#cursor = 0;
    this.#repeat.start();
  }

  #back() {
    if (this.#trail.length === 0) return;
    this.#window = this.#trail.pop();
    this.#cursor = 0;
    this.#repeat.start();
  }

  #shift(direction) {
    const { first, last } = parseSubnet(this.#of.subnet);
    const size = this.#map.last - this.#map.first + 1n;
    const from = this.#map.first + direction * size;
    if (from > last || from + size <= first) return;
    const to = from + size - 1n;
    this.#go({ from: from < first ? first : from, to: to > last ? last : to });
  }

  async #refresh() {
    const of = this.#of;
    const window = this.#window;
    const { bits } = parseSubnet(of.subnet);
    const params = { switch: of.uuid, subnet: of.subnet, cells: budget(this.#width) };
    if (window !== null) {
      params.from = formatAddress(window.from, bits);
      params.to = formatAddress(window.to, bits);
    }
    let answer;
    try {
      answer = await this.#load(params);
    } catch (error) {
      if (error instanceof RpcError && this.#of === of) say($("map-range"), error.message);
      throw error;
    }
    if (this.#of === of && this.#window === window) this.#take(answer);
  }

  /** Reads an answer of switches.map. */
  #take(answer) {
    const first = parseAddress(answer.from);
    const last = parseAddress(answer.to).value;
    const size = last - first.value + 1n;
    // The number of the answer ends at 2^53.
    let each = 1n;
    while (each * BigInt(answer.cells.length) < size) each *= 2n;
    const cells = answer.cells.map((numbers, index) => {
      const from = first.value + BigInt(index) * each;
      const to = from + each - 1n > last ? last : from + each - 1n;
      const counts = {};
      numbers.forEach((count, kind) => count > 0 && (counts[answer.kinds[kind]] = count));
      return { from, to, total: to - from + 1n, counts };
    });
    const map = { ...answer, bits: first.bits, first: first.value, last, each, cells, of: new Map() };
    answer.addresses.forEach((used) => map.of.set(used.address, used));
    this.#frameChanges(map);
    this.#map = map;
    this.#cursor = this.#indexOf(this.#aim) ?? Math.min(this.#cursor, cells.length - 1);
    this.#aim = null;
    this.#arrange();
    this.#titles();
    this.#legend();
    this.#tell(this.#cursor);
    this.#list();
  }

  #frameChanges(map) {
    const before = this.#map;
    const isSame = before !== null && before.uuid === map.uuid && before.first === map.first && before.last === map.last;
    if (!isSame || before.cells.length !== map.cells.length) {
      this.#changed.clear();
      return;
    }
    const until = performance.now() + FRAMED;
    map.cells.forEach((cell, index) => {
      if (JSON.stringify(cell.counts) !== JSON.stringify(before.cells[index].counts)) this.#changed.set(index, until);
    });
    if (this.#changed.size > 0) setTimeout(() => this.#draw(), FRAMED + 50);
  }

  #resized() {
    const width = $("cells").clientWidth;
    const isOther = budget(width) !== budget(this.#width);
    this.#width = width;
    if (this.#map === null) return;
    if (isOther && this.#window === null) this.soon();
    this.#arrange();
  }

  #arrange() {
    const context = $("canvas").getContext("2d");
    context.font = this.#font();
    // The last address of a subnet is as long as any.
    const longest = context.measureText(formatAddress(this.#map.last, this.#map.bits)).width;
    this.#place = layout(this.#width, this.#map.cells.length, longest);
    this.#draw();
  }

  #font() {
    return `11px ${getComputedStyle(document.body).fontFamily}`;
  }

  #draw() {
    if (this.#map === null || this.#place === null) return;
    const { cells, bits } = this.#map;
    const now = performance.now();
    for (const [index, until] of this.#changed) if (until <= now) this.#changed.delete(index);
    const { columns, rows } = this.#place;
    const labels = Array.from({ length: rows }, (_, row) => formatAddress(cells[row * columns].from, bits));
    const marks = this.#wanted.map((text) => this.#indexOf(parseAddress(text))).filter((index) => index !== null);
    const cursor = document.activeElement === $("cells") ? this.#cursor : null;
    drawCells($("canvas"), this.#palette, {
      cells, labels, cursor, marks,
      font: this.#font(), place: this.#place, alone: this.#alone, changed: [...this.#changed.keys()],
    });
  }

  // --- words

  #titles() {
    const { switch: name, subnet, first, last, bits, each } = this.#map;
    say($("map-title"), `Addresses of ${name}, ${subnet}`);
    const range = `${formatAddress(first, bits)} to ${formatAddress(last, bits)}`;
    const size = each === 1n ? "one address" : `${each.toLocaleString("en")} addresses`;
    say($("map-range"), `${range}, ${size} in a cell`);
    const whole = parseSubnet(subnet);
    $("out").disabled = this.#window === null;
    $("back").disabled = this.#trail.length === 0;
    $("lower").disabled = first <= whole.first;
    $("higher").disabled = last >= whole.last;
  }

  #legend() {
    if (this.#map === null) return;
    const sums = {};
    for (const [kind, count] of this.#map.cells.flatMap(({ counts }) => Object.entries(counts))) {
      sums[kind] = Math.min((sums[kind] ?? 0) + count, GREATEST);
    }
    const items = Object.keys(KINDS).map((kind) => ({ kind, count: sums[kind] ?? 0, alone: this.#alone === kind }));
    show($("legend"), items, ({ kind }) => kind, ({ kind, count, alone }) => {
      const [word, meaning] = KINDS[kind];
      const more = { title: meaning, class: count === 0 ? "none" : null, "aria-pressed": String(alone), "data-kind": kind };
      const toggle = button(el("canvas", { "aria-hidden": "true" }), () => this.#only(kind), more);
      toggle.append(word, " ", el("b", null, number(count)));
      return el("li", null, toggle);
    });
    for (const canvas of $("legend").querySelectorAll("canvas")) {
      canvas.style.width = "14px";
      drawSwatch(canvas, this.#palette, canvas.parentElement.dataset.kind);
    }
  }

  #only(kind) {
    this.#alone = this.#alone === kind ? null : kind;
    this.#legend();
    this.#draw();
  }

  #tell(index) {
    const cell = this.#map?.cells[index];
    if (cell === undefined) return;
    const { bits, of } = this.#map;
    const from = formatAddress(cell.from, bits);
    if (cell.total > 1n) {
      const uses = Object.entries(cell.counts).map(([kind, count]) => `${number(count)} ${KINDS[kind][0]}`);
      say($("readout"), `${from} to ${formatAddress(cell.to, bits)}: ${uses.join(", ")}`);
      return;
    }
    const kind = Object.keys(cell.counts)[0] ?? "free";
    const used = of.get(from);
    say($("readout"), `${from}: ${describe(used ?? { kind, holders: [] })}`);
  }

  /** The table of the addresses in use: what the map shows, in words. */
  #list() {
    const all = this.#map?.addresses ?? [];
    const isFine = this.#map?.each === 1n;
    say($("used-title"), isFine ? `Addresses in use (${number(all.length)})` : "Addresses in use: open a cell to list them");
    if (!$("used").open) return;
    show($("used-rows"), all.slice(0, ROWS_OF_TABLE), ({ address }) => address, (used) => {
      const holders = el("td", { class: "text" }, holdersOf(used, this.#open));
      return el("tr", null, el("td", { class: "code" }, used.address), el("td", null, KINDS[used.kind][0]), holders);
    });
    const more = all.length - ROWS_OF_TABLE;
    say($("used-more"), more > 0 ? `${plural(more, "address", "addresses")} more: open a smaller part of the map.` : "");
  }

  // --- hands

  #indexOf(address) {
    if (this.#map === null || address === null || address.bits !== this.#map.bits) return null;
    const { first, last, each } = this.#map;
    if (address.value < first || address.value > last) return null;
    return Number((address.value - first) / each);
  }

  #at(event) {
    if (this.#place === null || this.#map === null) return null;
    const { left, columns, pitch, height } = this.#place;
    const box = $("canvas").getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - left) / pitch);
    const index = Math.floor((event.clientY - box.top) / height) * columns + column;
    return column >= 0 && column < columns && index < this.#map.cells.length ? index : null;
  }

  #click(index) {
    if (index === null) return;
    this.#cursor = index;
    this.#enter(index);
  }

  /** Opens a cell: a part of the map, or the holders of an address. */
  #enter(index) {
    const cell = this.#map?.cells[index];
    if (cell === undefined) return;
    if (cell.total > 1n) {
      const least = BigInt(budget(this.#width));
      const each = this.#map.each;
      this.#go(this.#around(cell.from, each > least ? each : least));
      return;
    }
    this.#moveTo(index);
    const used = this.#map.of.get(formatAddress(cell.from, this.#map.bits));
    const vm = used?.holders.find((holder) => holder.vm !== undefined);
    if (vm !== undefined) this.#open(vm);
  }

  #moveTo(index) {
    if (index === null || this.#map === null) return;
    this.#cursor = Math.max(0, Math.min(index, this.#map.cells.length - 1));
    this.#tell(this.#cursor);
    this.#draw();
  }

  #nextUsed(step) {
    const { cells } = this.#map;
    const wanted = this.#alone === null ? STACK.filter((kind) => kind !== "excluded") : [this.#alone];
    let index = this.#cursor + step;
    while (index >= 0 && index < cells.length && !wanted.some((kind) => cells[index].counts[kind] > 0)) index += step;
    return index >= 0 && index < cells.length ? index : this.#cursor;
  }

  #key(event) {
    if (this.#map === null || event.altKey || event.metaKey) return;
    const { columns, rows } = this.#place;
    const here = this.#cursor;
    const start = here - (here % columns);
    const moves = {
      ArrowLeft: () => here - 1,
      ArrowRight: () => here + 1,
      ArrowUp: () => (here >= columns ? here - columns : here),
      ArrowDown: () => (here + columns < this.#map.cells.length ? here + columns : here),
      Home: () => (event.ctrlKey ? 0 : start),
      End: () => (event.ctrlKey ? this.#map.cells.length - 1 : start + columns - 1),
      PageUp: () => here - columns * Math.min(8, Math.floor(here / columns)),
      PageDown: () => here + columns * Math.min(8, rows - 1 - Math.floor(here / columns)),
      n: () => this.#nextUsed(1),
      p: () => this.#nextUsed(-1),
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (moves[key] !== undefined && !(event.ctrlKey && key.length === 1)) this.#moveTo(moves[key]());
    else if (key === "Enter" || key === " ") this.#enter(here);
    else if (key === "Backspace" || key === "Escape") this.#back();
    else return;
    event.preventDefault();
  }
}

/** A used address in words. */
function describe({ kind, holders, service }) {
  const [word, meaning] = KINDS[kind];
  const who = holders.map(({ namespace, vm, port, retainedUntil }) => {
    const name = vm === undefined ? `port ${port}` : `${namespace}/${vm} (port ${port})`;
    return retainedUntil === undefined ? name : `${name}, retained until ${retainedUntil}`;
  });
  if (service !== undefined) who.push(service);
  return `${word}, ${who.length === 0 ? lowered(meaning) : who.join(" and ")}`;
}

/** The holders of an address: VMs as buttons. */
function holdersOf({ holders, service }, open) {
  const parts = holders.map((holder) => {
    if (holder.vm === undefined) return el("div", null, "port ", code(holder.port));
    return el("div", null, vmButton(holder, open), " ", code(holder.port));
  });
  return service === undefined ? parts : [...parts, el("div", null, service)];
}
