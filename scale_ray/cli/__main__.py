from scale_ray.cli import main

main()
