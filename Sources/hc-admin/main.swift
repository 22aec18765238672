import HCAdmin

AdminProgram.main()
