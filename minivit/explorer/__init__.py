"""One self-contained HTML page in which attention can be seen, and a model that runs in it.

`write_page` makes the file, `show` puts it into a notebook, with the picture of `still.py` beside
it. `gather.py` asks a Vision Transformer, `gather_captions.py` a captioner, `packed.py` writes
numbers as text, `document.py` joins them with the page's own parts in `page/`: HTML, CSS and small
JavaScript files, each one idea, of which `vit.js` is the forward pass of `minivit/vit.py`.
`method_scores.py` knows how far the methods can be trusted.
"""

from minivit.explorer.document import write_page as write_page
from minivit.explorer.notebook import show as show
