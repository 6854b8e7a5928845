"""Values as users have them: identifiers, numbers, units, positions."""
