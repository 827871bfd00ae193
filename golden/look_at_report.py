"""Takes pictures of a report: two widths, light and dark, and the first printed pages.

    pip install playwright          # uses the Chromium that is installed; nothing is downloaded
    python golden/look_at_report.py report.html pictures/

Exits with status 1 if the page scrolls sideways at any width or asks for anything outside of itself.
"""

import pathlib
import shutil
import sys

from playwright.sync_api import sync_playwright

WIDTHS = [1280, 380]
THEMES = ["light", "dark"]


def look(browser, url, width, theme, out):
    """One picture; returns what is wrong."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.screenshot(path=out / f"{width}-{theme}.png", full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    faults = [f"{width} px, {theme}: it is {wide} px wide"] if wide > width else []
    return faults + [f"it asks for {other}" for other in asked if other != url]


def main():
    report, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--disable-background-networking"])
        faults = [fault for width in WIDTHS for theme in THEMES for fault in look(browser, report.as_uri(), width, theme, out)]
        page = browser.new_page()
        page.goto(report.as_uri())
        page.pdf(path=out / "print.pdf", format="A4", prefer_css_page_size=True)
        browser.close()
    print("\n".join(faults) or "no faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
