from tract_ray.cli.command import main

main()
