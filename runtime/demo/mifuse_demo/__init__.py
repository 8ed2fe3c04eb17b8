"""A ready bundle, trained on synthetic speech, and a call: `mifuse-runtime demo` finds both here."""
