// Makes the home page live: it refreshes the live sections, adds buttons that copy, and shows the URL
// under which the browser sees the page. Without it, a reload shows the same.
"use strict";

(() => {
  const PERIOD = 3000; // milliseconds between two refreshes
  const LONGEST = 30000; // milliseconds between two tries while proxpi does not answer
  const TIMEOUT = 10000; // milliseconds after which it does not

  // ---- Live sections -------------------------------------------------------------------------

  const live = document.getElementById("live");
  const note = document.getElementById("connection");
  let timer = 0;
  let asking = false;
  let pause = PERIOD;
  let lostAt = null;

  function selects(node) {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(node, true);
  }

  // Change a node into another where they differ: what is alike keeps focus, scroll and selection.
  function morph(node, next) {
    if (node.isEqualNode(next)) return;
    if (node.nodeName !== next.nodeName || node.id !== next.id) {
      node.replaceWith(next);
    } else if (node.nodeType !== Node.ELEMENT_NODE) {
      node.data = next.data;
    } else {
      for (const { name } of [...node.attributes]) {
        // The reader opens and closes details.
        if (name !== "open" && !next.hasAttribute(name)) node.removeAttribute(name);
      }
      for (const { name, value } of next.attributes) {
        if (name !== "open" && node.getAttribute(name) !== value) node.setAttribute(name, value);
      }
      morphChildren(node, next);
    }
  }

  function morphChildren(node, next) {
    const nodes = [...node.childNodes];
    const others = [...next.childNodes];
    others.forEach((other, at) => (at < nodes.length ? morph(nodes[at], other) : node.append(other)));
    nodes.slice(others.length).forEach((rest) => rest.remove());
  }

  function show(html) {
    const fetched = new DOMParser().parseFromString(html, "text/html");
    const sections = [...fetched.querySelectorAll("body > section")];
    const kept = new Set(sections.map((each) => each.id));
    [...live.children].filter((each) => !kept.has(each.id)).forEach((each) => each.remove());
    sections.forEach((section, at) => {
      const present = document.getElementById(section.id);
      if (present === null) live.insertBefore(section, live.children[at] ?? null);
      else if (!selects(present)) morph(present, section);
    });
    document.title = document.getElementById("state").dataset.title;
  }

  async function refresh() {
    if (asking) return;
    asking = true;
    try {
      const response = await fetch("stats?format=html", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      show(await response.text());
      lostAt = null;
      pause = PERIOD;
    } catch {
      lostAt ??= new Date();
      pause = Math.min(pause * 2, LONGEST);
      note.textContent = `Not connected to proxpi since ${lostAt.toLocaleTimeString()}: what you see is of that time.`;
    }
    asking = false;
    note.hidden = lostAt === null;
    document.body.classList.toggle("lost", lostAt !== null);
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, pause);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) refresh();
  });
  schedule();

  // ---- Client lines --------------------------------------------------------------------------

  const base = new URL(".", location);
  const local = /^(localhost|.*\.localhost|127\.[\d.]+|\[::1\])$/.test(base.hostname);
  for (const each of document.querySelectorAll(".base")) each.textContent = base.href;
  for (const each of document.querySelectorAll(".host")) each.textContent = base.hostname;
  for (const each of document.querySelectorAll(".insecure")) {
    each.hidden = base.protocol === "https:" || local;
  }

  function select(element) {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = document.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  }

  // Browsers have a clipboard for scripts on https and localhost alone.
  async function copy(element) {
    try {
      await navigator.clipboard.writeText(element.innerText);
      return "Copied";
    } catch {
      select(element);
      return document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
    }
  }

  for (const pre of document.querySelectorAll("pre[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    const word = document.createTextNode("Copy");
    const what = document.createElement("span");
    what.className = "unseen";
    what.textContent = ` (${pre.dataset.copy})`;
    button.append(word, what);
    button.addEventListener("click", async () => {
      word.data = await copy(pre.firstElementChild);
      setTimeout(() => (word.data = "Copy"), 2000);
    });
    const around = document.createElement("div");
    around.className = "copyable";
    pre.replaceWith(around);
    around.append(pre, button);
  }
})();
