from mifuse.cli import main

main()
