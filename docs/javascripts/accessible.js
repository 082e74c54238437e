// What Material for MkDocs leaves out for keyboards and screen readers (found by axe-core).
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-typeset__scrollwrap, pre > code").forEach((box) => { box.tabIndex = 0; });
  document.querySelectorAll(".md-code__nav").forEach((bar, i) => bar.setAttribute("aria-label", `Code ${i + 1}`));
});
