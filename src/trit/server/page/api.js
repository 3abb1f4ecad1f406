// The server's API: one way to ask, with the key, and with every refusal in words.

/** An answer that is an error. `status` 0: the server was not reached. `details`: its body's. */
trit.Refusal = class extends Error {
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
};

const KEY = "trit.key";  // in sessionStorage: it goes with the tab
let key = null;
try { key = sessionStorage.getItem(KEY); } catch { /* a browser that keeps nothing */ }

/** The JSON of a GET. Throws Refusal. */
trit.get = async (path) => (await ask(path)).json();

/** The JSON that a POST of JSON is answered with. Throws Refusal; AbortError with `signal`. */
trit.post = async (path, body, signal) => (await ask(path, body, signal)).json();

/** The events of a stream, parsed, until [DONE]. Throws as post(), also in the middle. */
trit.events = async function* (path, body, signal) {
  const response = await ask(path, body, signal);
  let whole = false;
  for await (const line of lines(response.body)) {
    const data = line.startsWith("data: ") ? line.slice(6) : null;
    if (data === "[DONE]") whole = true;
    if (data === null || whole) continue;
    const event = JSON.parse(data);
    if (event.error) throw refusal(event.error.code === "unavailable" ? 503 : 500, event);
    yield event;
  }
  if (!whole) throw new trit.Refusal(0, "The connection was lost in the middle of the answer.");
};

async function ask(path, body, signal) {
  for (;;) {
    const response = await send(path, body, signal);
    if (response.ok) return response;
    const error = await response.json().catch(() => ({}));
    if (response.status !== 401 || !await askForKey()) throw refusal(response.status, error);
  }
}

async function send(path, body, signal) {
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  try {
    return await fetch(path, { headers, signal, cache: "no-store", redirect: "error", ...post });
  } catch (error) {
    throw lost(error);
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const found = (rest + value).split("\n");
      rest = found.pop();
      yield* found;
    }
  } catch (error) {
    throw lost(error);
  } finally {
    reader.cancel().catch(() => {});  // a reader that goes away early frees the server's slot
  }
}

function lost(error) {
  if (error.name === "AbortError") return error;
  return new trit.Refusal(0, "The server does not answer. Is `trit serve` still running?");
}

function refusal(status, body) {
  const details = body.error ?? {};
  return new trit.Refusal(status, details.message ?? `The server answered ${status}.`, details);
}

function keep(given) {
  key = given;
  try { sessionStorage.setItem(KEY, key); } catch { /* then until the page is left */ }
}

let asking = null;  // all who are refused wait for the one dialog

/** Whether a key was given, which is then in use; false if the person will not give one. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const field = document.getElementById("key-field");
    document.getElementById("key-title").textContent =
      key === null ? "This server wants a key" : "That key is not valid here";
    field.value = "";
    document.getElementById("key-cancel").onclick = () => dialog.close("cancel");
    dialog.returnValue = "cancel";
    dialog.onclose = () => {
      asking = null;
      const given = dialog.returnValue === "use" && field.value.trim();
      if (given) keep(given);
      field.value = "";
      resolve(Boolean(given));
    };
    dialog.showModal();
  });
  return asking;
}
