/* placeholder: records */
