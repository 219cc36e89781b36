"use strict";
(() => {
  const live = document.getElementById("live");
  if (!live) return;
  const EVERY = 1000, MOST = 15000;
  let wait = EVERY;

  const FIELDS = "input, select, textarea, button";
  const isUsed = (element) =>
    element.querySelector("details.row[open], .hit:hover") !== null ||
    (element.contains(document.activeElement) && document.activeElement.matches(FIELDS));
  // What is open stays open, and the keyboard's focus stays where it is.
  const swap = (old, fresh) => {
    if (!old || !fresh || isUsed(old)) return;
    const opened = [...old.querySelectorAll("details")].map((each) => each.open);
    [...fresh.querySelectorAll("details")].forEach((each, place) => { each.open = opened[place] || false; });
    if (old.outerHTML === fresh.outerHTML) return;
    const focused = [...old.querySelectorAll("summary, a, [tabindex]")].indexOf(document.activeElement);
    old.replaceWith(fresh);
    if (focused >= 0) [...fresh.querySelectorAll("summary, a, [tabindex]")][focused]?.focus();
  };
  const titles = (part) => [...part.querySelectorAll(":scope > .blocks > .block > h3")].map((title) => title.textContent);
  const swapPart = (old, fresh) => {
    if (titles(old).join("\n") !== titles(fresh).join("\n")) return swap(old, fresh);
    const blocks = [...fresh.querySelectorAll(":scope > .blocks > .block")];
    if (blocks.length === 0) return swap(old, fresh);
    [...old.querySelectorAll(":scope > .blocks > .block")].forEach((block, place) => swap(block, blocks[place]));
  };
  const show = (page, whole) => {
    const here = document.getElementById("live"), there = page.getElementById("live");
    swap(document.getElementById("state"), page.getElementById("state"));
    for (const fresh of [...page.querySelectorAll("section.part")]) {
      const old = document.getElementById(fresh.id);
      if (old) swapPart(old, fresh);
      else if (whole) document.querySelector("main").append(fresh);
    }
    if (whole) swap(document.querySelector("header > nav"), page.querySelector("header > nav"));
    if (here.innerHTML !== there.innerHTML) here.replaceChildren(...there.childNodes);
    for (const name of Object.keys(there.dataset)) here.dataset[name] = there.dataset[name];
    document.getElementById("control").hidden = here.dataset.running !== "true";
  };
  const read = async (address) => {
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };
  const look = async () => {
    if (document.hidden) return;
    try {
      if ("reload" in live.dataset) {
        if (!(await read(location.href)).querySelector("[data-reload]")) location.reload();
      } else {
        const page = await read(live.dataset.live), there = page.getElementById("live");
        const newer = there.dataset.counted !== live.dataset.counted;
        if ("whole" in live.dataset) swap(live.firstElementChild, there.firstElementChild);
        else if (newer) show(await read(location.href), true);
        else show(page, false);
      }
      wait = live.dataset.running === "false" ? 3 * EVERY : EVERY;
      document.body.classList.remove("gone");
    } catch (_) {
      wait = Math.min(2 * wait, MOST);
      document.body.classList.add("gone");
    }
  };
  const go = () => look().finally(() => setTimeout(go, wait));
  setTimeout(go, EVERY);
  document.addEventListener("visibilitychange", look);
})();
