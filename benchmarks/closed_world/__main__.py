from benchmarks.closed_world.run import main

if __name__ == "__main__":
    main()
