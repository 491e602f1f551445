// --- The API by WebSocket: Link, RpcError, LostError, Repeat -----------------------------------------------------------------

/** The limit for an answer. A link without answers is dead, whatever the browser thinks of it. */
const ANSWER_WITHIN = 15_000;
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;
const TOKEN_KEY = "ovn-kubevirt.token";

/** An error that the API has answered. Its message says the way out. */
class RpcError extends Error {
  constructor({ code, message, data }) {
    super(message);
    this.code = code;
    this.reason = data?.reason;
  }
}

/** There is no answer, since there is no connection any more. The link tells why, and connects again. */
class LostError extends Error {}

/**
 * A connection that comes back by itself.
 *
 *   connecting --> live --(lost)--> paused (1 s, 2 s, 4 s, ... 30 s) --> connecting
 *        |
 *        +--(401)--> asking for the token
 *
 * `events` has `live(status)`, `lost(text, seconds)`, `connecting()`, `refused(text)`: all are called on each change.
 */
class Link {
  #events;
  #socket = null;
  #waiting = new Map();
  #streams = new Map();
  #lastId = 0;
  #pause = FIRST_PAUSE;
  #timer = null;

  constructor(events) {
    this.#events = events;
    addEventListener("online", () => this.connect());
    addEventListener("pagehide", () => this.#socket?.close());
    addEventListener("pageshow", (event) => event.persisted && this.connect());
  }

  get isLive() {
    return this.#socket !== null;
  }

  static get hasToken() {
    return sessionStorage.getItem(TOKEN_KEY) !== null;
  }

  static keepToken(token) {
    if (token === null) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, token.trim());
  }

  /** Connects now, if there is neither a connection nor an attempt. */
  async connect() {
    if (this.#socket !== null || this.#timer === "connecting") return;
    clearTimeout(this.#timer);
    this.#timer = "connecting";
    this.#events.connecting();
    try {
      const status = await this.#ask();
      if (status === null) return;
      this.#socket = await this.#open();
      this.#pause = FIRST_PAUSE;
      this.#timer = null;
      this.#events.live(status);
    } catch (error) {
      this.#retry(error.message);
    }
  }

  /** Leaves the connection, and connects again. */
  drop(why) {
    this.#lost(this.#socket, why);
  }

  // The status by POST: a WebSocket that is refused does not say why. Null where the page has to ask a person first.
  async #ask() {
    const headers = { "content-type": "application/json" };
    const token = sessionStorage.getItem(TOKEN_KEY);
    if (token !== null) headers.authorization = `Bearer ${token}`;
    const body = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "status", params: {} });
    const signal = AbortSignal.timeout(ANSWER_WITHIN);
    const response = await fetch("rpc", { method: "POST", headers, body, signal, cache: "no-store" }).catch(() => {
      throw new Error("the API does not answer");
    });
    if (response.status === 401) {
      this.#timer = null;
      this.#events.refused(token === null ? "" : "The API does not know this token.");
      return null;
    }
    if (!response.ok) throw new Error((await response.text()).trim() || `the API answers with HTTP ${response.status}`);
    const { result, error } = await response.json();
    if (error) throw new RpcError(error);
    return result;
  }

  #open() {
    const url = new URL("rpc", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const token = sessionStorage.getItem(TOKEN_KEY);
    const protocols = token === null ? ["ovn-kubevirt"] : ["ovn-kubevirt", `bearer.${base64url(token)}`];
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, protocols);
      const limit = setTimeout(() => socket.close(), ANSWER_WITHIN);
      socket.addEventListener("open", () => {
        clearTimeout(limit);
        socket.addEventListener("message", (event) => this.#receive(event.data));
        resolve(socket);
      });
      socket.addEventListener("close", () => {
        clearTimeout(limit);
        reject(new Error("the API takes no WebSocket"));
        this.#lost(socket, "the connection is lost");
      });
    });
  }

  #lost(socket, why) {
    if (socket === null || this.#socket !== socket) return;
    this.#socket = null;
    socket.close();
    for (const { fail } of this.#waiting.values()) fail(new LostError(why));
    this.#waiting.clear();
    this.#streams.clear();
    this.#retry(why);
  }

  #retry(why) {
    // Many pages that lose one server do not come back at one moment.
    const pause = this.#pause * (0.75 + Math.random() / 2);
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    this.#timer = setTimeout(() => this.connect(), pause);
    this.#events.lost(why, Date.now() + pause);
  }

  #receive(text) {
    const message = JSON.parse(text);
    if (message.method !== undefined) {
      this.#streams.get(message.params.subscription)?.(message.params);
      return;
    }
    const asked = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error) asked?.fail(new RpcError(message.error));
    else asked?.done(message.result);
  }

  /** Calls a method. Rejects with an RpcError, or with a LostError. */
  call(method, params = {}) {
    const socket = this.#socket;
    if (socket === null) return Promise.reject(new LostError("there is no connection"));
    this.#lastId += 1;
    const id = this.#lastId;
    const answer = new Promise((done, fail) => this.#waiting.set(id, { done, fail }));
    const limit = setTimeout(() => this.#lost(socket, "the API has not answered in time"), ANSWER_WITHIN);
    socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    return answer.finally(() => clearTimeout(limit));
  }

  /**
   * Subscribes to ports. `take` gets each message. A gap in the numbers, or an end by the server, ends the connection: the
   * next one reads everything anew.
   */
  async subscribe(params, take) {
    let last = null;
    const id = await this.call("ports.subscribe", params);
    this.#streams.set(id, ({ result, error }) => {
      if (error) return this.drop(error.message ?? "the API has ended the subscription");
      if (last !== null && result.sequence !== last + 1) return this.drop("a message is missing");
      last = result.sequence;
      return take(result);
    });
  }
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * Makes a call again and again: every `every` milliseconds, or soon after a change, but with a pause of ten times the
 * duration of the last call, so that the page never keeps a server busy. It rests while the page is hidden.
 */
class Repeat {
  #make;
  #every;
  #least;
  #timer = null;
  #due = 0;
  #notBefore = 0;
  #running = false;
  #again = false;
  #urgent = false;
  #on = false;

  constructor(make, { every, least }) {
    this.#make = make;
    this.#every = every;
    this.#least = least;
    document.addEventListener("visibilitychange", () => this.#plan());
  }

  /** Makes the call now, and from then on. */
  start() {
    this.#on = true;
    this.#urgent = true;
    this.#run();
  }

  stop() {
    this.#on = false;
    clearTimeout(this.#timer);
  }

  /** Something has changed. */
  soon() {
    this.#due = 0;
    if (this.#running) this.#again = true;
    else this.#plan();
  }

  #plan() {
    clearTimeout(this.#timer);
    if (!this.#on || this.#running || document.hidden) return;
    const at = Math.max(this.#due, this.#notBefore);
    this.#timer = setTimeout(() => this.#run(), Math.max(0, at - performance.now()));
  }

  async #run() {
    if (this.#running) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#running = true;
    this.#again = false;
    this.#urgent = false;
    const begun = performance.now();
    try {
      await this.#make();
    } catch (error) {
      if (error instanceof RpcError) console.warn(error.message);
      else if (!(error instanceof LostError)) console.error(error);
    } finally {
      const now = performance.now();
      this.#running = false;
      this.#notBefore = this.#urgent ? now : now + Math.max(this.#least, 10 * (now - begun));
      this.#due = this.#again ? 0 : now + this.#every;
      this.#plan();
    }
  }
}
