// The server, as the page asks it. The token lives in this module's memory and nowhere else.

const TIMEOUT_S = 90;
const LONGEST_WAIT_S = 30;
const PATIENCE = 3; // times a busy server is asked again before the reader is told

/** An answer that is no answer: the HTTP status (0 where none came), and what the server said. */
export class Refusal extends Error {
  constructor(status, said) {
    super(said);
    this.status = status;
  }
}

export class Client {
  #token = null;
  #asking = null;
  #declined = false; // the reader gave no token: only what the reader does asks again
  #askToken;

  /** `askToken(wrong)` asks the reader: a promise of the token, or of null. */
  constructor(askToken) {
    this.#askToken = askToken;
  }

  async json(path, options = {}) {
    const answer = await this.#ask(path, options);
    try {
      return await answer.json();
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Refusal(0, ""); // it broke off, or another program answers there
    }
  }

  async blob(path, signal) {
    return (await this.#ask(path, { signal })).blob();
  }

  /** One study. `onWait(seconds)` is told when the server is busy and the page waits. */
  async predict(files, { film, signal, onWait }) {
    const form = new FormData();
    for (const file of files) form.append("image", file, "film"); // a file's own name may name the patient
    const path = `v1/predict?include=maps${film ? "&include=film" : ""}`;
    this.#declined = false;
    for (let turn = 0; ; turn++) {
      try {
        return await this.json(path, { method: "POST", body: form, signal });
      } catch (refusal) {
        if (!(refusal instanceof Refusal) || !refusal.retryAfterS || turn === PATIENCE) throw refusal;
        onWait(refusal.retryAfterS);
        await pause(refusal.retryAfterS, signal);
      }
    }
  }

  async #ask(path, options = {}) {
    for (;;) {
      const sent = this.#token;
      const answer = await this.#send(path, options, sent);
      if (answer.ok) return answer;
      const refusal = await refused(answer);
      if (answer.status !== 401) throw refusal;
      if (sent !== this.#token) continue; // another request has brought a token meanwhile
      if (this.#declined) throw refusal;
      this.#asking ??= this.#askToken(sent !== null).finally(() => (this.#asking = null));
      const token = await this.#asking;
      this.#declined = token === null;
      if (this.#declined) throw refusal;
      this.#token = token;
    }
  }

  async #send(path, { signal, ...options }, token) {
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    const limit = AbortSignal.timeout(1000 * TIMEOUT_S);
    const ends = signal ? AbortSignal.any([signal, limit]) : limit;
    try {
      return await fetch(path, { ...options, headers, cache: "no-store", signal: ends });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refusal(0, "");
    }
  }
}

async function refused(answer) {
  let said = "";
  try {
    said = (await answer.json()).error.message;
  } catch {
    // not the server's own JSON: the status says enough
  }
  const refusal = new Refusal(answer.status, said);
  const seconds = Number(answer.headers.get("Retry-After"));
  const busy = answer.status === 429 || answer.status === 503;
  if (busy && seconds > 0 && seconds <= LONGEST_WAIT_S) refusal.retryAfterS = Math.ceil(seconds);
  return refusal;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
