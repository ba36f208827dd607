"""Commands on data sets and pictures: pack, index, verify, stats, score."""
