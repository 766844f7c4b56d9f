"""One file a pipeline: where its passes are called, and how to look over their shoulder."""
