// Keyboard shortcuts, "select all", and what htmx is told. Every page works without this file.
"use strict";

const shortcuts = { o: "overview", r: "requests", w: "waiting", d: "dead", b: "batches", p: "pauses", a: "audit" };
let pressed = 0;

const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
  if (event.key === "g") {
    pressed = event.timeStamp;
    return;
  }
  if (pressed && event.timeStamp - pressed < 1500 && shortcuts[event.key]) {
    const link = document.querySelector(`nav a[data-page="${shortcuts[event.key]}"]`);
    if (link) link.click();
  } else if (event.key === "/") {
    const search = document.querySelector('input[type="search"]');
    if (search) {
      event.preventDefault();
      search.focus();
    }
  } else if (event.key === "?") {
    const help = document.getElementById("shortcuts");
    if (help) {
      help.open = !help.open;
      help.querySelector("summary").focus();
    }
  }
  pressed = 0;
});

// A box that ticks all others of its form.
document.addEventListener("change", (event) => {
  const box = event.target;
  if (box instanceof HTMLInputElement && box.dataset.all) {
    for (const one of box.form.querySelectorAll(`input[name="${box.dataset.all}"]`)) one.checked = box.checked;
  }
});

// A page that is shown anew says whether it still is: an answer that is no page of ours stops it.
document.addEventListener("htmx:beforeSwap", (event) => {
  const status = event.detail.xhr.status;
  document.body.classList.toggle("stale", status !== 200);
  const stale = document.getElementById("stale");
  if (stale) stale.hidden = status === 200;
  if (status === 401) window.location.reload();
});
document.addEventListener("htmx:sendError", () => {
  const stale = document.getElementById("stale");
  if (stale) stale.hidden = false;
});
