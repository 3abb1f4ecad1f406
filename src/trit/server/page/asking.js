// Prompts of the voter's own: a field, the wait for the answers, and the way to them.
//
// How far the answers are is not said: that would tell which model takes how long. Leaving the page
// cancels, as the request lasts until both are made.

const { button, el, post } = trit;
const EMPTY = "Write a prompt first.";

/**
 * The field. `voter()` is who asks, `ready()` says whether the answers may be shown at once, and
 * `show()` shows them. `element` is to be placed, `room(own)` told what each turn has of it.
 */
trit.asking = (voter, ready, show) => {
  let waiting = null;  // what cancels the request under way
  const text = el("textarea", { id: "own-prompt", rows: 2, "aria-describedby": "own-hint" });
  const hint = el("p", { id: "own-hint", class: "hint" });
  const send = el("button", { class: "firm" }, "Get answers");
  const cancel = button("Cancel", () => waiting?.abort());
  const bar = el("progress", { "aria-label": "Answers are being made" });
  const news = el("p", { class: "news", role: "status" });
  const look = button("Show them now", () => { tell(""); show(); });
  const form = el("form", { class: "own", hidden: true, onsubmit: ask },
    el("label", { for: "own-prompt" }, "A prompt of your own"), text, hint, bar, news,
    el("div", { class: "row" }, look, cancel, send));

  function tell(words, failed = false, there = false) {
    news.textContent = words;
    news.classList.toggle("failure", failed);
    look.hidden = !there;
  }

  function wait(controller) {
    waiting = controller;
    bar.hidden = cancel.hidden = waiting === null;
    send.hidden = waiting !== null || text.disabled;
    text.readOnly = waiting !== null;
  }

  async function ask(event) {
    event.preventDefault();
    if (waiting !== null) return;
    const prompt = text.value.trim();
    if (prompt === "") return tell(EMPTY, true);
    wait(new AbortController());
    tell("The models are answering. You can go on voting; leaving the page cancels.");
    cancel.focus();
    try {
      const found = await post("/compare/prompts", { voter: voter(), prompt }, waiting.signal);
      text.value = "";
      finished(found);
    } catch (error) {
      if (error.name === "AbortError") tell("Cancelled. Nothing of it is kept.");
      else tell(error.message, true);
      text.focus();
    } finally {
      wait(null);
    }
  }

  function finished(found) {
    room(found);
    if (found.same) return tell("All models wrote the same to it: there is nothing to vote on.");
    if (ready()) {
      tell("");
      return show();
    }
    tell("The answers to your prompt are there; they come next.", false, true);
  }

  function room(own) {
    form.hidden = own === null;
    if (own === null) return;
    if (own.letters) text.maxLength = own.letters;
    hint.textContent = own.left === 0
      ? "All prompts that a voter may ask are asked."
      : `All models answer it, without names as before; only you see it. ${own.left} left.`;
    text.disabled = own.left === 0;
    wait(waiting);
  }

  wait(null);
  tell("");
  return { element: form, room, shown: () => { if (!look.hidden) tell(""); } };
};
