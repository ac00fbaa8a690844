"""Testing workflows, activities and stores: a clock that is moved by hand, and the suite that every store passes."""
