"""The local web page `tightframe explore`: predictions under one's hands, measured overlaid."""
