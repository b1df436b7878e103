"""What a page or a figure says: its text, links and tags."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what an HTML page refers to and its text."""

    def __init__(self):
        super().__init__()
        self.links, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [
            value for name, value in attributes if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    page = Page()
    page.feed(path.read_text())
    return page


def drawn_text(figure):
    return " ".join(
        [
            text.get_text()
            for axes in figure.axes
            for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        ]
        + [axes.get_title(loc="left") for axes in figure.axes]
        + [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    )
