/* placeholder: ids */
