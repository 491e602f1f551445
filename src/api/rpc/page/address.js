// --- Addresses as numbers: parseAddress, formatAddress, parseSubnet ----------------------------------------------------------

/** `10.16.0.1` as `{ bits: 32, value: 168820737n }`; null for text that is no address. */
function parseAddress(text) {
  const bits = text.includes(":") ? 128 : 32;
  const value = bits === 32 ? parseV4(text) : parseV6(text);
  return value === null ? null : { bits, value };
}

function parseV4(text) {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return null;
  return parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

function parseV6(text) {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  // RFC 4291, section 2.2: the last 32 bits may be written as IPv4.
  const last = groups.at(-1);
  if (last.length > 0 && last.at(-1).includes(".")) {
    const tail = parseV4(last.pop());
    if (tail === null) return null;
    last.push((tail >> 16n).toString(16), (tail & 0xffffn).toString(16));
  }
  const count = groups.flat().length;
  const zeros = 8 - count;
  if (halves.length === 2 ? zeros < 1 : zeros !== 0) return null;
  const all = halves.length === 2 ? [...groups[0], ...Array(zeros).fill("0"), ...groups[1]] : groups[0];
  if (!all.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  return all.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}

/** A number as an address, of IPv6 as RFC 5952 writes it. */
function formatAddress(value, bits) {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join(".");
  const groups = Array.from({ length: 8 }, (_, index) => ((value >> BigInt(112 - 16 * index)) & 0xffffn).toString(16));
  let best = { start: 0, length: 1 };
  for (let start = 0; start < 8; start += 1) {
    let end = start;
    while (end < 8 && groups[end] === "0") end += 1;
    if (end - start > best.length) best = { start, length: end - start };
  }
  if (best.length < 2) return groups.join(":");
  return `${groups.slice(0, best.start).join(":")}::${groups.slice(best.start + best.length).join(":")}`;
}

/** `10.16.0.0/16` as `{ bits, first, last }`; null for text that is no subnet. */
function parseSubnet(text) {
  const [address, length] = text.split("/");
  const parsed = parseAddress(address);
  if (parsed === null || length === undefined) return null;
  const host = BigInt(parsed.bits - Number(length));
  const first = (parsed.value >> host) << host;
  return { bits: parsed.bits, first, last: first + (1n << host) - 1n };
}
