// One answer, as it comes: the request, the stream, what it took, what went wrong, in words.

const { models, tree } = trit;
const DRAW_MS = 50;  // at least, between two drawings of a growing answer

/**
 * Begin to answer into the node at a place. `onchange(state)` is called when there is more to show,
 * with what is waited for in words, or "". The answer has `done`, a promise that never fails: the
 * node has `finish` or `error` then, and `stats` {tokens, rate a second, first in seconds, context,
 * about: 1 where tokens were counted by pieces}.
 */
trit.answer = (talk, at, onchange) => {
  const node = talk.nodes[at];
  const made = {
    talk, at, node, controller: new AbortController(), begun: performance.now(), first: null,
    last: null, pieces: 0, usage: null, before: context(talk, node.parent),
    used: () => made.usage?.total_tokens ?? made.before + made.pieces,
  };
  made.done = write(made, onchange);
  return made;
};

function context(talk, at) {
  for (let place = at; place >= 0; place = talk.nodes[place].parent) {
    if (talk.nodes[place].stats) return talk.nodes[place].stats.context;
  }
  return 0;
}

async function write(made, onchange) {
  const { node, controller } = made;
  const draw = paced(onchange);
  const clock = setInterval(() => { if (made.first === null) onchange(waiting(made)); }, 1000);
  try {
    await models.loaded(controller.signal);
    for await (const event of trit.events("/v1/chat/completions", body(made), controller.signal)) {
      take(made, event);
      draw(made.first === null ? waiting(made) : trit.took(stats(made)));
    }
  } catch (error) {
    if (error.name === "AbortError") node.finish = "stopped";
    else node.error = words(error);
  }
  clearInterval(clock);
  draw.stop();
  if (made.first !== null) node.stats = stats(made);
}

function body({ talk, at, node }) {
  const { settings } = talk;
  const sampling = { ...settings };
  const before = tree.siblings(talk, at).indexOf(at);
  if ("seed" in settings) sampling.seed += before;  // another answer, and still a certain one
  return {
    model: node.model, messages: tree.messages(talk, node.parent), stream: true,
    stream_options: { include_usage: true }, ...sampling,
  };
}

function take(made, { choices, usage }) {
  if (usage) made.usage = usage;
  const [choice] = choices;
  if (!choice) return;
  const { content, reasoning_content: thought } = choice.delta;
  if (content || thought) {
    made.last = performance.now();
    made.first ??= made.last;
    made.pieces++;
    made.node.content += content ?? "";
    if (thought) made.node.reasoning = (made.node.reasoning ?? "") + thought;
  }
  if (choice.finish_reason) made.node.finish = choice.finish_reason;
}

function stats(made) {
  const tokens = made.usage?.completion_tokens ?? made.pieces;
  const seconds = (made.last - made.first) / 1000;
  const found = { tokens, first: (made.first - made.begun) / 1000, context: made.used() };
  if (seconds > 0 && tokens > 1) found.rate = (tokens - 1) / seconds;
  if (!made.usage) found.about = 1;
  return found;
}

function waiting(made) {
  const seconds = Math.round((performance.now() - made.begun) / 1000);
  const state = models.current()?.state;
  const what = state === "loaded" ? "Reading" : "Loading the model";
  return seconds < 1 ? `${what}…` : `${what}… ${seconds} s`;
}

function words({ status, message, details }) {
  if (details?.n_ctx) {
    return `The conversation has ${details.n_prompt_tokens.toLocaleString("en")} tokens, and the ` +
      `context has room for ${details.n_ctx.toLocaleString("en")}. Shorten your message, go back to ` +
      "an earlier one and edit it, or begin a new conversation.";
  }
  return status === 503 ? `${message} Try again in a moment.` : message;
}

/** `call` with the newest argument, not more often than a drawing takes time. */
function paced(call) {
  let timer = null;
  let newest;
  let cost = 0;
  const run = () => {
    const begun = performance.now();
    timer = null;
    call(newest);
    cost = performance.now() - begun;
  };
  const made = (argument) => {
    newest = argument;
    timer ??= setTimeout(run, Math.max(DRAW_MS, 4 * cost));
  };
  made.stop = () => clearTimeout(timer);
  return made;
}
