"use strict";
// What the page cannot do alone: it looks like Airflow around it, leads there, and stays up to date.
(() => {
  const EVERY = 5000;
  const root = document.documentElement;
  const isFramed = window.parent !== window;
  const outer = () => window.parent.document;

  const follow = () => {
    const isDark = outer().documentElement.classList.contains("dark");
    root.classList.toggle("dark", isDark);
    root.classList.toggle("light", !isDark);
  };

  // Airflow may change its own address later, so what it was opened with is kept.
  const opened = isFramed ? window.parent.location : location;
  const target = [location.hash, opened.hash].find((hash) => /^#order-\d+$/.test(hash))?.slice(1);

  const mark = () => {
    const row = target && document.getElementById(target);
    if (row) row.classList.add("target");
    return row;
  };

  if (isFramed) {
    const wanted = new URLSearchParams(opened.search).get("connection");
    if (wanted && !new URLSearchParams(location.search).has("connection")) {
      location.replace(`?connection=${encodeURIComponent(wanted)}${target ? `#${target}` : ""}`);
      return;
    }
    follow();
    new MutationObserver(follow).observe(outer().documentElement, { attributes: true, attributeFilter: ["class"] });
  }

  document.getElementById("connection")?.addEventListener("change", (event) => event.target.form.submit());

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    // The frame's sandbox lets no link of its own lead its parent elsewhere; a link of the parent's may.
    if (!link || !isFramed || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const there = outer().createElement("a");
    there.href = link.href;
    outer().body.append(there);
    there.click();
    there.remove();
  });

  // A command is marked to be copied, by the mouse or the keyboard.
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches("code.copy")) getSelection().selectAllChildren(target);
  });
  document.addEventListener("focusout", ({ target }) => {
    if (target.matches("code.copy")) getSelection().empty();
  });

  const scrolled = () => [...document.querySelectorAll(".wide")];
  const focusable = () => [...document.querySelectorAll("main a, main code")];

  const refresh = async () => {
    if (document.hidden || String(getSelection())) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 401) {
      // The login has ended: Airflow's own page leads to the next one.
      (isFramed ? window.parent : window).location.reload();
      return;
    }
    const now = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (!now) return;
    const at = focusable().indexOf(document.activeElement);
    const lefts = scrolled().map((one) => one.scrollLeft);
    document.querySelector("main").replaceWith(now);
    scrolled().forEach((one, index) => one.scrollTo({ left: lefts[index] ?? 0 }));
    if (at >= 0) focusable()[at]?.focus({ preventScroll: true });
    mark();
  };

  document.addEventListener("click", (event) => {
    if (event.target.id !== "refresh") return;
    event.preventDefault();
    refresh();
  });

  mark()?.scrollIntoView({ block: "center" });
  setInterval(() => refresh().catch(() => {}), EVERY);
})();
