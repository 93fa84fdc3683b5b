// Draw every panel from the JSON in the page, in the colours of its style sheet, light or dark.
"use strict";
(async () => {
  // A noscript element holds text where scripts run. Its picture is the SVG to download.
  const pictures = [...document.querySelectorAll("noscript[data-picture]")].map((node) => {
    const picture = new DOMParser().parseFromString(node.textContent, "text/html").querySelector("img");
    const link = document.querySelector(`.downloads a[download="${CSS.escape(node.dataset.picture)}"]`);
    if (link) link.href = picture.src;
    return [node, picture];
  });

  // Load plotly.js, which the page holds compressed. Without the means to unpack it, show the pictures.
  const unpacked = async () => {
    if (typeof DecompressionStream === "undefined") return false;
    const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return true;
  };
  if (!(await unpacked())) {
    for (const [node, picture] of pictures) node.after(picture);
    for (const node of document.querySelectorAll(".plot, .film")) node.remove();
    document.documentElement.dataset.drawn = "0";
    return;
  }

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || name;

  const faded = (name, alpha) => {
    const hex = colour(name).replace("#", "");
    const [r, g, b] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };

  const hidden = () =>
    new Set([...document.querySelectorAll(".toggles input:not(:checked)")].map((box) => box.value));

  // Current moment of each film, by figure. Later moments are hidden, earlier ones faint.
  const moments = new Map();

  const filmed = (trace, moment) => {
    const now = trace.meta.moment === moment;
    if (trace.meta.band) return { ...trace, visible: now, fillcolor: "c0" };
    const name = now ? "c0" : "muted";
    const size = now ? 8 : 5;
    return {
      ...trace, visible: trace.meta.moment <= moment, opacity: now ? 1 : 0.4,
      line: { ...trace.line, color: name, width: now ? 2.4 : 1.2 }, marker: { ...trace.marker, color: name, size },
    };
  };

  const traces = (panel, off, moment) =>
    panel.traces.map((given) => {
      const film = given.meta.moment !== undefined;
      const trace = film ? filmed(given, moment) : given;
      const shown = { ...trace, showlegend: false };
      if (!film) shown.visible = !off.has(trace.meta.model);
      if (trace.type === "heatmap") {
        const bar = { thickness: 12, outlinewidth: 0, tickcolor: colour("soft") };
        return { ...shown, colorbar: { ...trace.colorbar, ...bar } };
      }
      shown.line = { ...trace.line, color: colour(trace.line.color) };
      if (trace.marker) shown.marker = { ...trace.marker, color: colour(trace.marker.color) };
      if (trace.marker && trace.marker.symbol.includes("thin")) {
        shown.marker.line = { width: 2, color: shown.marker.color };
      }
      if (trace.fillcolor) shown.fillcolor = faded(trace.fillcolor, 0.16);
      return shown;
    });

  const axis = (given) => ({
    ...given, gridcolor: colour("line"), zeroline: false, linecolor: colour("soft"), tickcolor: colour("soft"),
    ticks: "outside", fixedrange: true, title: { ...given.title, font: { size: 13 } },
  });

  const layout = (node, panel, off, now) => {
    const labels = panel.layout.annotations
      .filter((label) => (label.moment === undefined ? !off.has(label.model) : label.moment === now))
      .map(({ model, moment, ...label }) => ({
        ...label, font: { ...label.font, color: colour(moment === undefined ? label.font.color : "c0") },
      }));
    const longest = Math.max(...panel.layout.annotations.map((label) => label.text.length), 4);
    return {
      width: node.clientWidth, height: node.clientHeight, hovermode: "closest", annotations: labels,
      margin: { t: 14, l: 70, b: 54, r: Math.min(24 + 7.6 * longest, 170) },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("text"), size: 13, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: colour("card"), font: { color: colour("text") }, bordercolor: colour("line") },
      xaxis: { ...axis(panel.layout.xaxis), showgrid: false },
      yaxis: axis(panel.layout.yaxis),
    };
  };

  const config = { displaylogo: false, displayModeBar: false };

  const draw = () => {
    const off = hidden();
    for (const [node, panel] of plots) {
      const now = moments.get(node.dataset.figure);
      Plotly.react(node, traces(panel, off, now), layout(node, panel, off, now), config);
    }
  };

  for (const film of document.querySelectorAll(".film")) {
    const names = JSON.parse(film.dataset.moments);
    const [slider, said, button] = ["input", "output", "button"].map((name) => film.querySelector(name));
    const show = () => {
      moments.set(film.dataset.film, Number(slider.value));
      said.textContent = names[Number(slider.value)];
      slider.setAttribute("aria-valuetext", said.textContent);
    };
    show();
    film.hidden = false;
    slider.addEventListener("input", () => {
      show();
      draw();
    });
    let timer = 0;
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.textContent = "Play";
    };
    button.addEventListener("click", () => {
      if (timer) return stop();
      const to = (moment) => {
        slider.value = moment;
        slider.dispatchEvent(new Event("input"));
        if (moment >= names.length - 1) stop();
      };
      button.textContent = "Stop";
      timer = setInterval(() => to(Number(slider.value) + 1), 700);
      if (Number(slider.value) >= names.length - 1) to(0);
    });
  }

  for (const node of document.querySelectorAll(".plot")) {
    plots.push([node, figures[node.dataset.figure][Number(node.dataset.panel)]]);
  }
  draw();
  for (const box of document.querySelectorAll(".toggles input")) box.addEventListener("change", draw);
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width) draw();
    width = document.body.clientWidth;
  }).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("themechange", draw);
  document.documentElement.dataset.drawn = String(plots.length);
})();
