//! Everything that compares us with the originals.
