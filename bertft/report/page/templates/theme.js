// Switch between the system's, the light and the dark theme. The choice is stored if the browser allows it.
"use strict";
(() => {
  const root = document.documentElement;
  const choices = ["auto", "light", "dark"];
  const words = { auto: "as the system", light: "light", dark: "dark" };
  let chosen = "auto";
  try {
    chosen = localStorage.getItem("bertft-theme") || "auto";
  } catch {} // browsers may deny storage to local files
  if (!choices.includes(chosen)) chosen = "auto";

  const apply = () => {
    if (chosen === "auto") delete root.dataset.theme;
    else root.dataset.theme = chosen;
  };
  apply();

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector(".theme");
    const say = () => {
      button.textContent = `Colours: ${words[chosen]}`;
      const next = choices[(choices.indexOf(chosen) + 1) % choices.length];
      button.setAttribute("aria-label", `Colours: ${words[chosen]}. Press for ${words[next]}.`);
    };
    say();
    button.hidden = false;
    button.addEventListener("click", () => {
      chosen = choices[(choices.indexOf(chosen) + 1) % choices.length];
      try {
        localStorage.setItem("bertft-theme", chosen);
      } catch {}
      apply();
      say();
      document.dispatchEvent(new Event("themechange"));
    });
  });
})();
