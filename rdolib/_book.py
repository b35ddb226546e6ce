"""The Sphinx side of the book: alternative text from outputs, no image without it, no script from elsewhere.

Loaded by the book's configuration only; nothing else imports it.
"""

from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

logger = logging.getLogger(__name__)


class AltTextRenderer(NbElementRenderer):  # type: ignore[misc,unused-ignore]
    """Takes an image's alternative text from the output's metadata, where `rdolib.notebook.show` puts it."""

    def render_image(self, data: MimeData) -> list[nodes.Element]:
        """Render an image as usual, then add its alternative text."""
        images: list[nodes.Element] = super().render_image(data)
        alt = data.output_metadata.get(data.mime_type, {}).get("alt")
        if alt:
            for image in images:
                image["alt"] = alt
        return images


def require_alt_text(app: Sphinx, doctree: nodes.document) -> None:
    """Warn about every image without alternative text; the strict build turns the warning into an error."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            logger.warning("image without alternative text: %s", image.get("uri"), location=image, type="alt_text")


def find_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a name that docstrings and annotations use without its module.

    `rdolib.MDP`, a bare `MDP`, and a module that imports `MDP` for its annotations all mean `rdolib.mdp.MDP`.
    """
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    name = node["reftarget"].rpartition(".")[2]
    known = [key for key in domain.objects if key.startswith("rdolib.") and key.endswith(f".{name}")]  # type: ignore[attr-defined]
    if len(known) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", known[0], node, content)


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document) -> None:
    """Remove the scripts of live code cells, which load from a content network."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{getattr(script, 'filename', script)}{getattr(script, 'attributes', '')}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", require_alt_text)
    app.connect("missing-reference", find_public_name)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
