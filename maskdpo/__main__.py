from maskdpo.cli import main

main()
