"""From a trained student to a bundle, by mifuse_export; and how fast the bundle is."""
