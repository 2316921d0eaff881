"""A home battery in closed loop: simulator, optimum, rules, planner, the controller that ships."""
