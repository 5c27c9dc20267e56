"""One module per schema; none of them changes once it was released."""
