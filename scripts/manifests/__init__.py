"""deploy/kubernetes, rendered and understood: for its page and its tests."""
