"""The command `mifuse-runtime`: what an app that embeds the library never loads."""
