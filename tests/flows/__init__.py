"""An app with workflows, which every process of the tests finds: this one and its workers."""
