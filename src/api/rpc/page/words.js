// --- Elements and words: $, el and its short forms, say, show, number, span, plural, KINDS, FAULTS, STATES, place ------------
//
// Names and messages come from tenants. They become text nodes: no string of theirs is ever read as markup, which the
// Content-Security-Policy enforces besides (require-trusted-types-for).

const $ = (id) => document.getElementById(id);

/** An element with attributes; `on...` are listeners. Children are elements and strings; null and false are left out. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const vmName = ({ namespace, vm }) => `${namespace}/${vm}`;
const portName = (port) => `${vmName(port)}/${port.network}/${port.port ?? ""}`;

const row = (...children) => el("div", { class: "row" }, ...children);
const line = (...children) => el("p", { class: "text" }, ...children);
const code = (text) => el("span", { class: "code" }, text);
const end = (text) => el("span", { class: "end" }, text);
const tag = ([word, tone]) => el("span", { class: `tag ${tone}` }, word);
const button = (name, onclick, more) => el("button", { type: "button", class: "name", onclick, ...more }, name);
const vmButton = (vm, open) => button(vmName(vm), () => open(vm));
const fact = ([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value));

/** Sets a text, only where it differs: a live region speaks of each change. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** What each element of a list was made of. */
const prints = new WeakMap();

/**
 * Shows items as children of a list. An item that is as it was keeps its element, and so the keyboard's focus; the focus
 * in one that has changed goes to its successor.
 */
function show(list, items, keyOf, make) {
  const before = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const active = list.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.closest("[data-key]")?.dataset.key;
  const nodes = items.map((item) => {
    const print = JSON.stringify(item);
    const there = before.get(keyOf(item));
    if (there !== undefined && prints.get(there) === print) return there;
    const node = make(item);
    node.dataset.key = keyOf(item);
    prints.set(node, print);
    return node;
  });
  nodes.forEach((node, index) => {
    if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null);
  });
  while (list.children.length > nodes.length) list.lastChild.remove();
  if (active !== null && document.activeElement !== active) {
    const next = nodes.find((node) => node.dataset.key === key);
    (next?.querySelector("button") ?? list.closest("section,dialog"))?.focus({ preventScroll: true });
  }
}

/** The greatest number of the API: what is greater is given as this. */
const GREATEST = Number.MAX_SAFE_INTEGER;
const number = (value) => (value >= GREATEST ? "more than 9e15" : value.toLocaleString("en"));
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** A duration of so many seconds. */
function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3_600)} h`;
}

const lowered = (sentence) => sentence[0].toLowerCase() + sentence.slice(1);
const clock = (date) => date.toLocaleTimeString("en-GB");

/** The uses of addresses: the word, and what it means. */
const KINDS = {
  free: ["free", "For allocation"],
  vm: ["VM", "Held by the port of a VM"],
  reserved: ["reserved", "Reserved for the next start of a VM"],
  retained: ["retained", "Retained for a deleted VM"],
  foreign: ["foreign", "Held by a port of others, such as a router"],
  service: ["service", "Answered for by OVN itself: NAT, load balancers"],
  conflict: ["conflict", "Held by several ports"],
  excluded: ["excluded", "Named by exclude_ips"],
  first: ["first", "The first host address, never allocated unless a VM names it"],
  resting: ["resting", "Released a moment ago, and not allocated yet"],
  unusable: ["unusable", "The network or the broadcast address"],
};

/** The party that can correct a problem, with the tone of its tag. In the order in which an operator reads them. */
const FAULTS = {
  operator: ["for the operator", "bad"],
  owner: ["for the VM's owner", "busy"],
  passing: ["passes by itself", "soft"],
};

const STATES = {
  pending: ["no port yet", "busy"],
  unbound: ["stopped", "soft"],
  bound: ["bound", "good"],
  moving: ["moving", "busy"],
  retained: ["retained", "soft"],
};


/** Where a port is, in words. */
function place({ state, chassis, binding, retainedUntil }) {
  if (state === "retained") return retainedUntil === "forever" ? "retained for ever" : `retained until ${retainedUntil}`;
  if (state === "moving") return `${chassis.join(" \u2192 ")}${binding?.activated ? " (activated)" : ""}`;
  if (state === "bound") return `on ${chassis.join(", ")}`;
  return STATES[state]?.[0] ?? state;
}
