// What stands out from what is behind it, by WCAG 2.2: evaluated in the page by test_console_access.py.
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const { colour, opacity = 1 } of layers) {
      canvas.globalAlpha = opacity;
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift({ colour: getComputedStyle(at).backgroundColor });
    return layers;
  };
  /** The contrast of something painted on an element. */
  const ratio = (element, colour, opacity) => {
    const layers = behind(element);
    const light = [luminance(layers), luminance([...layers, { colour, opacity }])];
    return (Math.max(...light) + 0.05) / (Math.min(...light) + 0.05);
  };
  const found = { looked: 0, weak: [] };
  const look = (what, needed, element, colour, opacity = 1) => {
    const contrast = ratio(element, colour, opacity);
    found.looked += 1;
    if (contrast < needed) found.weak.push(`${what}: ${contrast.toFixed(2)}`);
  };

  /** Success criterion 1.4.3: text 4.5 to 1, and 3 to 1 where it is large. */
  window.weakTexts = () => {
    Object.assign(found, { looked: 0, weak: [] });
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const parent = walker.currentNode.parentElement;
      const said = walker.currentNode.textContent.trim();
      if (!said || !parent.checkVisibility() || parent.closest(".unseen, .skip, option")) continue;
      const style = getComputedStyle(parent);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      look(said, large ? 3 : 4.5, parent, style.color);
    }
    return [found.looked, found.weak];
  };

  /** Success criterion 1.4.11: 3 to 1 for what tells something without words: cells and their marks, fields, lines. */
  window.weakGraphics = () => {
    Object.assign(found, { looked: 0, weak: [] });
    for (const cell of document.querySelectorAll("#fleet .gpu")) {
      const [style, bar] = [getComputedStyle(cell), getComputedStyle(cell, "::after")];
      look(`edge of ${cell.className}`, 3, cell.parentElement, style.borderTopColor);
      look(`marks of ${cell.className}`, 3, cell, style.color);
      if (cell.matches(".busy")) look(`job bar of ${cell.className}`, 3, cell, bar.backgroundColor, bar.opacity);
    }
    for (const field of document.querySelectorAll("input:not([type=range]), select")) {
      if (field.checkVisibility()) look(`edge of ${field.name || field.id}`, 3, field.parentElement, getComputedStyle(field).borderTopColor);
    }
    for (const line of document.querySelectorAll(".charts .line, .charts .limit")) {
      look(`line of ${line.closest("dl").id}`, 3, line.closest("dl"), getComputedStyle(line).stroke);
    }
    return [found.looked, found.weak];
  };

  let stops = [];

  /** Takes note of whatever can be operated now: stops that the keyboard has to come to. Returns how many. */
  window.markStops = () => {
    const wanted = 'a[href], button:not([tabindex="-1"]), input:enabled, select:enabled, summary, [tabindex="0"]';
    stops = [...document.querySelectorAll(wanted)].filter((element) => element.checkVisibility());
    return stops.length;
  };

  /** Those that are still there and that it has not come to. */
  window.stopsLeft = () => {
    stops = stops.filter((element) => element.isConnected && element.checkVisibility());
    return stops.map((element) => element.outerHTML.slice(0, 120));
  };

  /** Ticks off what has the focus; returns whether that is to be seen, clearly enough, and what it is. */
  window.focusShown = () => {
    const element = document.activeElement;
    stops = stops.filter((stop) => stop !== element);
    const style = getComputedStyle(element);
    const drawn = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    const clear = ratio(element.parentElement ?? element, style.outlineColor) >= 3;
    return [element === document.body || (drawn && clear), element.outerHTML.slice(0, 120)];
  };
})()
