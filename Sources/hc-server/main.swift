import HCApp

ServerProgram.main()
