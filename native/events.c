/* placeholder: events */
