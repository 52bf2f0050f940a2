"""Language models that come with the brain, and where adapters to others belong. Imported by name, never from here."""
