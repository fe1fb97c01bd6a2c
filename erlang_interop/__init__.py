"""What tests and demos run on a BEAM: the term oracle, golden terms and transcripts; the demos."""
