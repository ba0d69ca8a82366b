"""What an answer gets wrong: plain records first, tables and picture sheets from them."""
