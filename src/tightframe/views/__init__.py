"""Tables and pictures of what is solved, as data: `tightframe.figures` draws and writes them."""
