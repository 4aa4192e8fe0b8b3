{
  const form = document.getElementById("filters");
  const items = [...document.querySelectorAll("[data-verdict]")];
  const claims = document.querySelectorAll("#forest [data-verdict]").length;
  const groups = document.querySelectorAll("[data-group]");

  function show() {
    const chosen = new FormData(form);
    const verdicts = chosen.getAll("verdict");
    for (const item of items) {
      const { verdict, section, experiment } = item.dataset;
      item.hidden = !(
        (!verdicts.length || verdicts.includes(verdict)) &&
        [section, ""].includes(chosen.get("section")) &&
        [experiment, ""].includes(chosen.get("experiment"))
      );
    }
    for (const group of groups)
      group.hidden = !group.querySelector("[data-verdict]:not([hidden])");
    const shown = document.querySelectorAll("#forest [data-verdict]:not([hidden])").length;
    document.getElementById("filters-said").textContent = `${shown} of ${claims} claims`;
  }

  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.closest("[hidden]")) {
      form.reset();
      show();
      target.scrollIntoView();
    }
  }

  if (form) {
    for (const control of form.querySelectorAll("[hidden]")) control.hidden = false;
    form.addEventListener("change", show);
    form.addEventListener("reset", () => setTimeout(show));
    form.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", reveal);
    show();
  }
}
